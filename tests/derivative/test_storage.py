"""Random programs of views and writes: tangents follow the memory, or the program is refused."""

import pytest
import torch

from jacobian_lab.derivative.linear_map import UnsupportedError
from jacobian_lab.derivative.linearisation import Linearisation

from linear_maps import differences, weights

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
