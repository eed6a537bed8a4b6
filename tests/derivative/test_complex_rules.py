"""Complex numbers and Fourier transforms against PyTorch's own Jacobian, in float64."""

import pytest
import torch

from linear_maps import SHAPE, check, weights


def rotary(x):
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], 3, 2).contiguous())
    turn = torch.polar(torch.ones(3, dtype=x.dtype), torch.arange(3, dtype=x.dtype))
    return torch.view_as_real(z * turn).flatten(-2)


def free_u(x):
    """Scale low frequencies, and half of the channels."""
    y = x.clone()
    y[:, :2] = y[:, :2] * 1.4
    z = torch.fft.fftshift(torch.fft.fftn(y, dim=(-2, -1)), dim=(-2, -1))
    mask = torch.ones_like(y)
    mask[..., 2:4, 2:4] = 0.3
    return torch.fft.ifftn(torch.fft.ifftshift(z * mask, dim=(-2, -1)), dim=(-2, -1)).real


def spectral(x):
    """A Fourier layer: complex weights on some modes."""
    X = torch.fft.rfft2(x)
    out = torch.zeros_like(X)
    w = torch.complex(weights(4, 4, 3, 3), weights(4, 4, 3, 3, seed=1))
    out[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", X[:, :, :3, :3], w)
    return torch.fft.irfft2(out, s=x.shape[-2:])


def short_time(x):
    window = torch.hann_window(8, dtype=x.dtype)
    X = torch.stft(x.flatten(1), 8, 4, window=window, return_complex=True)
    return torch.istft(X * (1 + X.abs()), 8, 4, window=window, length=x[0].numel()).reshape(x.shape)


COMPLEX = {
    "rotary embedding": rotary,
    "FreeU": free_u,
    "Fourier layer": spectral,
    "stft": short_time,
    "odd length": lambda x: torch.fft.irfft(
        torch.fft.rfft(x[..., :5], norm="ortho") ** 2, n=5, norm="forward"
    ),
    "hermitian": (
        lambda x: (
            torch.fft.hfft(torch.complex(x, x**2), dim=2) + torch.fft.ihfft(x, dim=2).real.sum()
        )
    ),
    "padded and cropped": lambda x: torch.fft.irfft2(
        torch.fft.rfft2(x, s=(8, 9)), s=(7, 6), norm="ortho"
    ),
    "polar": lambda x: torch.polar(x**2 + 1, x).real * torch.polar(x**2 + 1, x).imag,
    "parts": lambda x: (lambda z: z.abs() * z.angle() + z.conj().imag * (z * z.conj()).real)(
        torch.complex(x, x.flip(1))
    ),
    "products": lambda x: (
        lambda z: (
            (z @ (z.mH + weights(6, 6))).real
            + torch.einsum("bcij,bcij->bc", z, z.conj()).real[..., None, None]
        )
    )(torch.complex(x, x.flip(1))),
    "quotients": (
        lambda x: (
            (lambda z: torch.exp(z / (2 + z * z.conj())) / (3 + z))(
                torch.complex(x, x.flip(1))
            ).imag
        )
    ),
    "mixed with real": lambda x: (x * torch.complex(weights(6), weights(6, seed=1)) + x).abs(),
    "in place": lambda x: torch.view_as_real(
        (lambda z: (z[:, 1:].mul_(z[:, :1].conj()), z)[1])(torch.complex(x, x**2))
    ),
    "real part written to": lambda x: (lambda z: (z.real.mul_(x), z.imag.add_(z.real), z.abs())[2])(
        torch.complex(x, x.flip(1))
    ),
    "conjugate view": lambda x: (
        lambda z: (
            (z.conj() * 1j).imag + z.mH.conj().real + torch.view_as_real(z.conj().clone())[..., 0]
        )
    )(torch.complex(x, x.flip(1))),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_numbers_agree_with_pytorch(name, batch):
    J = check(COMPLEX[name], COMPLEX[name], weights(batch, *SHAPE, seed=1), 1e-10)
    assert J.reads == ()
