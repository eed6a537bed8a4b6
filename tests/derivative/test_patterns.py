"""Views and operations in place, complex numbers, and what whole families of networks are made of:
J is recorded right.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation

from linear_maps import SHAPE, check, differences, module, weights


def written(x, *steps, base=None):
    """A buffer, like x unless given, after the steps have written to it."""
    y = torch.zeros_like(x) if base is None else base(x)
    for step in steps:
        step(y)
    return y


def rotated(x):
    out = torch.empty_like(x)
    out[..., 0::2] = 0.8 * x[..., 0::2] - 0.6 * x[..., 1::2]
    out[..., 1::2] = 0.6 * x[..., 0::2] + 0.8 * x[..., 1::2]
    return out


def rotary(x):
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], 3, 2).contiguous())
    turn = torch.polar(torch.ones(3, dtype=x.dtype), torch.arange(3, dtype=x.dtype))
    return torch.view_as_real(z * turn).flatten(-2)


def dynamic_threshold(x):
    s = torch.quantile(x.flatten(1).abs(), 0.9, dim=1)[:, None, None, None]
    return x.clamp(-s, s) / s


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


def aliased_constant(x):
    buffer = torch.zeros_like(x)
    top, flat = buffer[:, :2], buffer.view(-1)  # views from before anything depends on x
    buffer.copy_(x**2)
    flat[3::7] *= 2
    return torch.cat([top, buffer[:, 2:]], 1) + flat.view_as(x)


def kept_then_written(x):
    y = x * 2
    z = y * x  # keeps y
    y.zero_()
    return z + y


def kept_constant_then_written(x):
    scale = torch.full((6,), 3.0, dtype=x.dtype)
    y = x * scale
    scale.mul_(2)
    return y * scale


def attention_then_in_place(x):
    q = x[:, :2]
    o = F.scaled_dot_product_attention(q, x[:, 2:], x[:, :2] ** 2)
    return o.add_(q).mul_(o.detach().sum().sign())


def energy(x):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad((torch.tanh(y) * y**2).sum(), y)[0]


def reshaped(x):
    y = x * 2
    w = y.flatten(2).sum(0)
    w.t_()
    y.unsqueeze_(1).transpose_(0, 1).squeeze_(0)
    return y * w.t_().reshape(4, 6, 6)


IN_PLACE = {
    "slice of a clone": lambda x: written(x, lambda y: y[:, 0].mul_(2), base=torch.tanh),
    "copied into a buffer": lambda x: written(x, lambda y: y.copy_(x**2)),
    "copied into another precision": (
        lambda x: written(
            x, lambda y: y.copy_(x), base=lambda x: x.new_empty(x.shape, dtype=torch.float32)
        ).double()
    ),
    "rotary embedding in slices": rotated,
    "slices, overlapping": lambda x: written(
        x, lambda y: y[..., :4].copy_(x[..., :4]), lambda y: y[..., 2:].add_(x[..., :4] ** 2)
    ),
    "a slice of zeros": lambda x: written(
        x, lambda y: y[..., 1:7].copy_(x), base=lambda x: x.new_zeros(*x.shape[:-1], 8)
    )[..., 1:],
    "zeroed": lambda x: written(
        x, lambda y: y[:, :2].zero_(), lambda y: y[:, 1].fill_(3), base=torch.sin
    ),
    "filled with an entry": lambda x: written(
        x, lambda y: y[:, 1].fill_(x[0, 0, 0, 0]), base=torch.sin
    ),
    "views from before": aliased_constant,
    "view, then in place": lambda x: (lambda y: torch.relu_(y.view(len(x), -1)).view_as(x) * y)(
        x * 1.0
    ),
    "transposed, then in place": lambda x: (lambda y: (y.mT.mul_(weights(6, 6)), y)[1])(x + 1),
    "diagonal": lambda x: (lambda y: (y.diagonal(dim1=-2, dim2=-1).mul_(x[..., 0]), y)[1])(x + 1),
    "overlapping windows": lambda x: (lambda y: (y.mul_(2), y.unfold(-1, 4, 1) * weights(3, 4))[1])(
        x + 1
    ),
    "as_strided": lambda x: (x + 0).as_strided((len(x), 5, 3), (144, 7, 2), 3) ** 2,
    "expanded, then its source written to": lambda x: (
        lambda y: (lambda z: (y.mul_(x[:, :1]), z * weights(4, 6, 6))[1])(y.expand(-1, 4, -1, -1))
    )(x[:, :1] * 2),
    "a set of indices": lambda x: written(
        x, lambda y: y.index_put_((torch.tensor([0]), torch.tensor([1, 1])), x[0, 2:, :], True)
    ),
    "item assignment by mask": lambda x: written(
        x, lambda y: y.__setitem__(weights(*x.shape) > 0, 0.5), base=torch.tanh
    ),
    "index_add": lambda x: written(x, lambda y: y.index_add_(1, torch.tensor([0, 0, 3, 1]), x**2)),
    "index_copy, index_fill": lambda x: written(
        x,
        lambda y: y.index_copy_(1, torch.tensor([3, 1]), x[:, :2]),
        lambda y: y.index_fill_(2, torch.tensor([1]), 0),
        base=torch.sin,
    ),
    "scatter": lambda x: written(
        x,
        lambda y: y.scatter_(1, torch.zeros(len(x), 1, 6, 6).long(), x[:, 1:2]),
        lambda y: y.scatter_add_(1, torch.ones(len(x), 2, 6, 6).long(), x[:, 1:3]),
    ),
    "masked_fill": lambda x: (x @ x).masked_fill_(torch.eye(6).bool(), -1e9).softmax(-1) @ x,
    "masked_scatter": lambda x: written(
        x, lambda y: y.masked_scatter_(weights(*x.shape) > 0, x**2), base=torch.sin
    ),
    "scores divided in place": lambda x: (x @ x.mT).div_(4).softmax(-1) @ x,
    "y = f(h), y += h": (
        lambda x: F.gelu(x).add_(x) + F.silu(x).mul_(x) + (x * torch.sigmoid(x)).add_(x)
    ),
    "clip after lerp (EDM2)": lambda x: torch.lerp(x, F.silu(x), 0.3).clip_(-0.5, 0.5),
    "normed, then in place": lambda x: (
        F.relu(F.group_norm(x, 2), inplace=True).add_(x) + F.relu(F.instance_norm(x), inplace=True)
    ),
    "softmax, then in place": lambda x: x.softmax(-1).mul_(x),
    "attention, then in place": attention_then_in_place,
    "kept, then written to": kept_then_written,
    "a constant kept, then written to": kept_constant_then_written,
    "names of lists": lambda x: (lambda a, b: (a.mul_(x[:, 2:]), torch.cat([a, b], 1))[1])(
        *(x * 2).chunk(2, 1)
    ),
    "out": lambda x: (lambda y: (torch.add(x, x**2, out=y[:, 1:]), y)[1])(
        x.new_zeros(len(x), 5, 6, 6)
    ),
    "out, of its own argument": lambda x: (lambda y: (torch.mul(y, x, out=y), y + 1)[1])(
        torch.sin(x)
    ),
    "data": lambda x: (lambda y: (setattr(y, "data", y.data * x), y * 2)[1])(torch.tanh(x)),
    "written through data": lambda x: (lambda y: (y.data.mul_(x), y * 2)[1])(torch.tanh(x)),
    "shapes": reshaped,
    "unsqueeze_": lambda x: torch.tanh(x) - x.mean(1).unsqueeze_(1),
    "dynamic thresholding": dynamic_threshold,
    "circular padding": lambda x: F.conv2d(
        F.pad(x, (1, 1, 2, 2), mode="circular"), weights(4, 4, 3, 3)
    ),
    "padding and border": (
        lambda x: (
            F.pad(x, (1, 0, 1, 0), mode="circular")[..., 1:, 1:]
            + x.diff(dim=-1, prepend=x[..., :1])
        )
    ),
    "GRU": lambda x: module(lambda: nn.GRU(6, 5, 2, batch_first=True, bidirectional=True))(x[:, 0])[
        0
    ],
    "LSTM": lambda x: module(lambda: nn.LSTM(6, 5, batch_first=True))(x[:, 0])[0],
    "RNN cell": lambda x: module(lambda: nn.GRUCell(6, 6))(x[:, 0, 0], x[:, 1, 0]),
    "running sums in a loop": lambda x: (
        lambda y: ([y[:, i].add_(y[:, i - 1] ** 2) for i in range(1, 4)], y)[1]
    )(x.clone()),
    "energy": energy,
    "input written to": lambda x: (x.mul_(2), torch.tanh(x))[1],
    "piece written to without gradients": lambda x: torch.no_grad()(lambda a, b: a.mul_(b))(
        *(x + 0).chunk(2, 1)
    ),
}
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
OTHERS = {
    "statistics of the batch": lambda x: F.batch_norm(
        x, None, None, weights(4), weights(4, seed=1), training=True
    ),
    "instance norm": lambda x: module(lambda: nn.InstanceNorm2d(4, affine=True))(x),
    "instance norm 1d": lambda x: F.instance_norm(x.flatten(2)),
    "cumulative": (
        lambda x: x.cumsum(1) + (1 + x**2).cumprod(2) + x.logcumsumexp(3) + x.cummax(1).values
    ),
    "grid sampling": lambda x: F.grid_sample(
        x, torch.tanh(x[:, :2]).movedim(1, -1), align_corners=False
    ),
    "affine grid": lambda x: F.grid_sample(
        x,
        F.affine_grid(x[:, 0, :2, :3], x.shape, False),
        padding_mode="border",
        align_corners=False,
    ),
    "rearranged": lambda x: (
        x.roll((1, -2), (2, 3))
        + x.flip(1, 2)
        + x.index_select(1, torch.tensor([3, 3, 0, 1])) * x.rot90(1, (2, 3))
    ),
    "gathered": (
        lambda x: x.gather(2, x.argsort(2)) + torch.take_along_dim(x, x.argmax(1, keepdim=True), 1)
    ),
    "unfold and fold": lambda x: F.fold(F.unfold(x, 3, padding=1) ** 2, (6, 6), 3, padding=1),
    "weights made of x": lambda x: F.conv2d(
        x, x[:1].mean((2, 3), keepdim=True).expand(4, 4, 3, 3) * weights(4, 4, 3, 3), padding=1
    ),
    "linear with weights made of x": lambda x: F.linear(x, x[0, 0] ** 2, x[0, 1, 0]),
    "pools": (
        lambda x: (
            F.max_pool2d(x, 2)[..., :2, :2]
            + F.adaptive_max_pool2d(x, 2)
            + F.lp_pool2d(x.abs() + 1, 2, 3)
        )
    ),
    "nearest code": (
        lambda x: (
            x
            * weights(3, 6)[torch.cdist(x.flatten(0, 2), weights(3, 6)).argmin(1)].reshape(x.shape)
        )
    ),
    "number of a threshold": lambda x: x * float(int((x > 0).sum())) if bool((x > 0).any()) else x,
    "factor, solve": lambda x: (
        torch.linalg.solve(torch.eye(6, dtype=x.dtype) * 5 + x, x)
        + torch.linalg.qr(x + 3 * torch.eye(6))[0]
    ),
    "spectra": (
        lambda x: (
            torch.linalg.svdvals(x)
            + torch.linalg.eigvalsh(x + x.mT)
            + torch.linalg.slogdet(x)[1][..., None]
        )
    ),
}
ALL = IN_PLACE | COMPLEX | OTHERS
HONEST = {  # as PyTorch must see it to find the derivative of what is computed
    "written through data": lambda x: torch.tanh(x) * x * 2,
    "data": lambda x: torch.tanh(x) * x * 2,
    "energy": lambda x: (1 - torch.tanh(x) ** 2) * x**2 + 2 * x * torch.tanh(x),
    "kept, then written to": lambda x: 2 * x * x,
    "input written to": lambda x: torch.tanh(2 * x),
    "piece written to without gradients": lambda x: x[:, :2] * x[:, 2:],
    "attention, then in place": lambda x: (lambda o: (o + x[:, :2]) * (o + x[:, :2]).sum().sign())(
        F.scaled_dot_product_attention(x[:, :2], x[:, 2:], x[:, :2] ** 2)
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_a_pattern_agrees_with_pytorch(name, batch):
    exact = 1e-6 if name == "copied into another precision" else 1e-10
    J = check(ALL[name], HONEST.get(name, ALL[name]), weights(batch, *SHAPE, seed=1), exact)
    assert J.reads == ()


# --------------------------------------------------------------------------- random programs


VIEWS = (
    lambda y, r: torch.view_as_real(y),
    lambda y, r: y.real,
    lambda y, r: y.imag,
    lambda y, r: y.conj(),
    lambda y, r: y[..., r(3) :],
    lambda y, r: y[:, r(2)],
    lambda y, r: y[..., ::2],
    lambda y, r: y.transpose(-1, -2),
    lambda y, r: y.detach(),
    lambda y, r: y.unsqueeze(r(y.ndim)),
    lambda y, r: y.flatten(),
    lambda y, r: y.chunk(2, -1)[r(2)],
    lambda y, r: y.diagonal(dim1=-2, dim2=-1),
    lambda y, r: y.unfold(-1, 2, 1 + r(2)),
    lambda y, r: y.data,
    lambda y, r: y.squeeze(),
    lambda y, r: y.expand(2, *y.shape),
)
WRITES = (
    lambda y, z, r: y.mul_(z),
    lambda y, z, r: y.add_(z),
    lambda y, z, r: y.copy_(z),
    lambda y, z, r: y.zero_(),
    lambda y, z, r: y.fill_(0.5),
    lambda y, z, r: y.sin_(),
    lambda y, z, r: y.clamp_(-0.7, 0.7),
    lambda y, z, r: y.div_(2 + z * z),
    lambda y, z, r: y.masked_fill_(torch.arange(y.shape[-1]) % 2 == 0, 0.3),
    lambda y, z, r: y.index_fill_(0, torch.tensor([0]), 0.1),
    lambda y, z, r: y.unsqueeze_(0),
    lambda y, z, r: y.squeeze_(),
    lambda y, z, r: y.transpose_(0, -1),
    lambda y, z, r: y.addcmul_(z, z),
    lambda y, z, r: torch.mul(y.clone(), z, out=y),
    lambda y, z, r: setattr(y, "data", torch.tanh(y)),
)
FRESH = (
    lambda y, z, r: torch.complex(y, torch.sin(y)),
    lambda y, z, r: torch.fft.fft(y),
    lambda y, z, r: torch.fft.irfft(y, n=y.shape[-1]),
    lambda y, z, r: y.abs(),
    lambda y, z, r: y * z,
    lambda y, z, r: torch.tanh(y),
    lambda y, z, r: y + y.flatten()[:1],
    lambda y, z, r: y.clone(),
    lambda y, z, r: torch.zeros_like(y),
    lambda y, z, r: y.softmax(-1),
    lambda y, z, r: torch.cat([y, y], -1),
    lambda y, z, r: y.sum(-1, keepdim=True) * y,
    lambda y, z, r: y.cumsum(0),
)


def program(seed):
    """A random program of views, writes in place and other operations on a growing set of
    tensors.
    """
    impossible = set()  # steps that do not fit the shapes they meet

    def run(x, trial=False):
        generator = torch.Generator().manual_seed(seed)

        def r(n):
            return int(torch.randint(max(1, n), (), generator=generator))

        constants = [weights(3, 4), weights(4)]
        pool = [x * 2, torch.zeros_like(x), *(c.clone() for c in constants)]
        for i in range(14):
            kind, y, z, scalar, which, state = (
                r(3),
                pool[r(len(pool))],
                pool[r(len(pool))],
                r(3),
                r(10**6),
                r(10**6),
            )
            generator.manual_seed(state)
            try:
                if i in impossible:
                    raise IndexError
                z = z.clone().flatten()[:1] if scalar else torch.sin(y)
                if kind == 0:
                    pool.append(VIEWS[which % len(VIEWS)](y, r))
                elif kind == 1:
                    WRITES[which % len(WRITES)](y, z, r)
                else:
                    pool.append(FRESH[which % len(FRESH)](y, z, r))
            except (RuntimeError, IndexError):
                if not trial and i not in impossible:
                    raise
                impossible.add(i)
            generator.manual_seed(state + i)
        reals = [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in pool]
        return torch.cat([t.reshape(-1) for t in reals])[None]

    with torch.no_grad():
        run(weights(1, 3, 4), trial=True)
    return run


# writes to expanded tensors, which are refused
@pytest.mark.filterwarnings("ignore:Use of:UserWarning")
@pytest.mark.parametrize("seed", range(40))
def test_a_random_program_is_recorded_right_or_refused(seed):
    with torch.no_grad():
        assert recorded_right(program(seed)) is not False


def recorded_right(function):
    """Whether the recording agrees with differences; None if it is refused."""
    x = weights(1, 3, 4, seed=9)
    try:
        J = Linearisation(function, x)
    except UnsupportedError:
        return None
    truth, V, U = (
        differences(function, x, 1e-4),
        weights(3, 12, seed=2),
        weights(3, J.value.numel(), seed=3),
    )
    pushed, pulled = J.jvp(V.reshape(3, 1, 3, 4)).flatten(1), J.vjp(U[:, None]).flatten(1)
    size = truth.norm() + 1e-6
    return bool(
        (J.value - function(x)).norm() < 1e-10
        and (pushed - V @ truth.T).norm() < 1e-5 * size
        and (pulled - U @ truth).norm() < 1e-5 * size
    )
