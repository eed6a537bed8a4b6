"""Mixers, Fourier layers, recurrences and scans."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from zoo.builders_attention import Transformer
from zoo.parts import Ends, Layer, inner
from zoo.registry import Wrapped, entry, fixed

family = partial(entry, "by hand", shape=(4, 8, 8))


@family()
def mlp_mixer():
    return Transformer(
        block=lambda: Layer(
            lambda h, n, a, b, m, c, d: (y := h + b(F.gelu(a(n(h).mT))).mT) + d(F.gelu(c(m(y)))),
            nn.LayerNorm(16),
            nn.Linear(16, 24),
            nn.Linear(24, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 24),
            nn.Linear(24, 16),
        )
    )


@family()
def fnet():
    return Transformer(
        block=lambda: Layer(
            lambda h, n, m: (
                (y := h + torch.fft.fft(torch.fft.fft(n(h), dim=-1), dim=-2).real) + m(y)
            ),
            nn.LayerNorm(16),
            nn.Sequential(nn.Linear(16, 16), nn.GELU()),
        )
    )


@family(shape=(2, 8, 8))
def fourier_neural_operator():
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(16, 16, 3, 3, 2) / 16)

        def forward(self, h):
            f = torch.fft.rfft2(h)
            out = torch.zeros_like(f)
            out[:, :, :3, :3] = torch.einsum(
                "bixy,ioxy->boxy", f[:, :, :3, :3], torch.view_as_complex(self.w)
            )
            return F.gelu(torch.fft.irfft2(out, s=h.shape[-2:]) + h)

    return Ends(nn.Sequential(Spectral(), Spectral()))


@family(shape=(2, 8, 8))
def spectral_gate():
    return inner(
        lambda h: torch.fft.irfft2(
            torch.fft.rfft2(h) * fixed(h, 16, 8, 5)[:1], s=h.shape[-2:]
        ).tanh()
    )


@family(shape=(1, 8, 16))
def short_time_fourier():
    def call(_, x, t):
        s = torch.stft(
            x.flatten(1),
            16,
            4,
            window=torch.hann_window(16).to(x),
            return_complex=True,
            pad_mode="constant",
        )
        s = s * torch.tanh(s.abs())
        return torch.istft(s, 16, 4, window=torch.hann_window(16).to(x), length=128).reshape(
            x.shape
        )

    return Wrapped(nn.Identity(), call)


def recurrent(kind, **options):
    net = kind(8, 8, batch_first=True, **options)
    wide = 16 if options.get("bidirectional") else 8
    return Wrapped(
        nn.ModuleList([net, nn.Linear(wide, 8)]),
        lambda n, x, t: n[1](n[0](x.flatten(1, 2))[0]).reshape(x.shape),
    )


@family(shape=(2, 8, 8))
def rnn_over_rows():
    return recurrent(nn.RNN)


@family(shape=(2, 8, 8))
def gru_over_rows():
    return recurrent(nn.GRU)


@family(shape=(2, 8, 8))
def lstm_over_rows():
    return recurrent(nn.LSTM)


@family(shape=(2, 8, 8))
def lstm_bidirectional_two_layers():
    return recurrent(nn.LSTM, bidirectional=True, num_layers=2)


@family(shape=(2, 8, 8))
def gru_cell_loop():
    def call(net, x, t):
        h, outs = x.new_zeros(len(x), 16), []
        for row in x.flatten(1, 2).unbind(1):
            h = net[0](row, h)
            outs.append(net[1](h))
        return torch.stack(outs, 1).reshape(x.shape)

    return Wrapped(nn.ModuleList([nn.GRUCell(8, 16), nn.Linear(16, 8)]), call)


@family(shape=(2, 8, 8))
def state_space_scan():
    """A diagonal state space model over the pixels (S4D, Mamba without selection), by a cumulative
    sum in the log domain.
    """

    def scan(h):
        u = F.softplus(h.flatten(2))
        decay = -0.1 * torch.arange(1, 65).to(h)
        return torch.logcumsumexp(u.log() - decay, -1).add(decay).exp().reshape(h.shape)

    return inner(scan)


@family(shape=(2, 8, 8))
def selective_scan():
    def scan(h, gate):
        a, u = torch.sigmoid(gate(h)).flatten(2), h.flatten(2)
        state, out = torch.zeros_like(u[..., 0]), []
        for i in range(u.shape[-1]):
            state = a[..., i] * state + (1 - a[..., i]) * u[..., i]
            out.append(state)
        return torch.stack(out, -1).reshape(h.shape)

    return inner(scan, nn.Conv2d(16, 16, 1))
