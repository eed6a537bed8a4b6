"""Networks of EDM2, EDM and NCSN++, written afresh."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from zoo.parts import inner, small
from zoo.registry import Wrapped, entry

family = partial(entry, "by hand", shape=(4, 8, 8))


def unit(w):
    return w / (1e-4 + w.square().mean((1, 2, 3), keepdim=True).sqrt())


class MagnitudePreserving(nn.Module):
    """A layer as of Karras et al. (2024): the weight is normalised in each pass, activations keep
    their magnitude.
    """

    def __init__(self, c_in, c_out, kernel=3, forced=False):
        super().__init__()
        self.weight, self.forced = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel)), forced

    def forward(self, x):
        if self.forced:
            with torch.no_grad():
                self.weight.copy_(
                    self.weight / self.weight.square().mean((1, 2, 3), keepdim=True).sqrt()
                )
        w = unit(self.weight) / self.weight[0].numel() ** 0.5
        return F.conv2d(x, w.to(x.dtype), padding=self.weight.shape[-1] // 2)


def edm2(forced=False, clip=False):
    def forward(h, a, b, qkv):
        y = F.silu(a(F.silu(h) / 0.596)) / 0.596
        h = torch.lerp(h, b(y), 0.3) / (0.7**2 + 0.3**2) ** 0.5
        q, k, v = (
            z / (1e-4 + z.square().mean(2, keepdim=True).sqrt())
            for z in qkv(h).reshape(len(h), 2, 3, 8, 64).permute(2, 0, 1, 3, 4)
        )
        w = torch.einsum("bhcq,bhck->bhqk", q, k / 8**0.5).softmax(3)
        h = torch.lerp(h, torch.einsum("bhqk,bhck->bhcq", w, v).reshape(h.shape), 0.3)
        return h.clip_(-256, 256) if clip else h

    layers = [
        MagnitudePreserving(16, 16, forced=forced),
        MagnitudePreserving(16, 16, forced=forced),
        MagnitudePreserving(16, 48, 1, forced=forced),
    ]
    return inner(forward, *layers)


@family(shape=(2, 8, 8), prediction="sample")
def edm2_magnitude_preserving():
    return edm2()


@family(shape=(2, 8, 8), prediction="sample")
def edm2_in_place_clip():
    return edm2(clip=True)


@family(shape=(2, 8, 8), prediction="sample")
def edm2_forced_weight_norm():
    return edm2(forced=True)


@family(shape=(2, 8, 8), prediction="sample")
def edm_preconditioned():
    """c_skip x + c_out F(c_in x, log(sigma) / 4), the network cast to its own dtype, as in EDM's
    wrapper.
    """
    net = small()

    def call(net, x, t):
        sigma = (t.to(torch.float32) / 500 + 0.002).reshape(-1, 1, 1, 1)
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        c_in = 1 / (0.25 + sigma**2).sqrt()
        f = net((c_in * x), sigma.log().flatten() / 4)
        return c_skip * x + c_out * f.to(x.dtype)

    return Wrapped(net, call)


@family(shape=(2, 8, 8), prediction="sample", outcome="right")
def edm_cast_to_float32():
    """EDM's wrapper as published: x is cast to float32 whatever it is; the result is float32's."""
    net = small()

    def call(net, x, t):
        coarse = x.to(torch.float32).to(x.dtype)
        return 0.3 * x + 0.5 * net(0.8 * coarse, t)

    return Wrapped(net, call)


class Upfirdn(nn.Module):
    """Resampling with a binomial filter, as StyleGAN's: NCSN++'s."""

    def __init__(self, up):
        super().__init__()
        self.up = up
        k = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(k, k)[None, None] / 64)

    def forward(self, x):
        c = x.shape[1]
        if self.up:
            return F.conv_transpose2d(
                x, 4 * self.kernel.expand(c, 1, 4, 4), stride=2, padding=1, groups=c
            )
        return F.conv2d(x, self.kernel.expand(c, 1, 4, 4), stride=2, padding=1, groups=c)


@family(shape=(2, 8, 8))
def ncsnpp_like():
    def forward(h, down, up, a, b, c):
        y = b(F.silu(a(down(h))))
        return (h + up(y + c(y).tanh())) / 2**0.5

    return inner(
        forward,
        Upfirdn(False),
        Upfirdn(True),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.GroupNorm(4, 16, eps=1e-6),
        nn.Conv2d(16, 16, 1),
    )
