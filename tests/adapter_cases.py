"""One tiny random model of each family that `load` takes, with the family's own formula for x_0,
and the check that all adapters have to pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab import JacobianOperator, Latent, audit

from conftest import relative

CASES = {}
"""Module of the adapter -> its cases."""


@dataclass(frozen=True)
class Case:
    """A family's tiny model.

    `make(dtype)` returns what `load` made of it and the formula, `(x, t) -> x_0`, which calls the
    model as the family's own code does.
    """

    name: str
    make: Callable
    t: float | int
    scale: float  # of x_t
    path: str
    rounds: bool  # whether the family's own code rounds to float32 somewhere on the way
    double: bool  # whether it runs in float64 at all
    needs: tuple

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class Row:
    """What was found: a line of the table."""

    single: float
    double: float | None
    path: str
    audit: bool
    product: float


def case(module, name, t=500, scale=1.0, path="linearised", rounds=False, double=True, needs=()):
    """Register a function as a case of an adapter."""

    def register(make):
        needed = (needs,) if isinstance(needs, str) else needs
        CASES.setdefault(module, []).append(
            Case(name, make, t, scale, path, rounds, double, needed)
        )
        return make

    return register


def cases(module):
    """Parametrise a test over the cases of an adapter."""
    import adapter_cases_diffusers  # noqa: F401
    import adapter_cases_flows  # noqa: F401
    import adapter_cases_images  # noqa: F401
    import adapter_cases_libraries  # noqa: F401
    import adapter_cases_text  # noqa: F401

    return pytest.mark.parametrize("case", CASES[module], ids=str)


def denoiser_of(made):
    return made.denoiser if isinstance(made, Latent) else made


def noisy(case, shape, dtype, count):
    g = torch.Generator().manual_seed(1)
    x = case.scale * torch.randn(count, *shape, generator=g, dtype=torch.float64)
    return x.float().to(dtype)


def error(case, dtype):
    """Return how far D is from the family's formula."""
    torch.manual_seed(0)
    made, formula = case.make(dtype)
    denoiser = denoiser_of(made)
    x = noisy(case, denoiser.shape, dtype, 2)
    with torch.no_grad():
        ours, theirs = denoiser(x, case.t), formula(x, case.t)
    assert ours.dtype == dtype
    assert float(theirs.norm()) > 0
    return relative(ours, theirs)


def products(case):
    """Return the path of J, the audit's report, and how far J v and J^T u are from PyTorch's
    autograd, in the precision that the family computes in.
    """
    torch.manual_seed(0)
    dtype = torch.float32 if case.rounds else torch.float64
    denoiser = denoiser_of(case.make(dtype)[0])
    x = noisy(case, denoiser.shape, dtype, 1)
    J = JacobianOperator(denoiser, x, case.t)
    v, u = torch.randn_like(x), torch.randn_like(x)
    with sdpa_kernel(SDPBackend.MATH):
        _, jv = torch.autograd.functional.jvp(lambda z: denoiser(z, case.t), x, v)
        _, jtu = torch.autograd.functional.vjp(lambda z: denoiser(z, case.t), x, u)
    off = max(
        relative(J @ v.flatten().numpy(), jv.flatten()),
        relative(J.T @ u.flatten().numpy(), jtu.flatten()),
    )
    return J.path, audit(J), off


def check(case):
    """Hold an adapter against the family's formula and J against autograd; return the row."""
    for module in case.needs:
        pytest.importorskip(module, exc_type=ImportError)
    single = error(case, torch.float32)
    double = error(case, torch.float64) if case.double else None
    path, report, off = products(case)
    assert single < 1e-6
    assert double is None or double < 1e-10
    assert path == case.path
    assert report, report
    assert off < (1e-5 if case.rounds else 1e-10)
    return Row(single, double, path, bool(report), off)
