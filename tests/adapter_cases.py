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
    needs: tuple  # modules
    rounds: bool = False  # whether the family's own code rounds to float32 somewhere on the way
    double: bool = True  # whether it runs in float64 at all
    slow: bool = False  # whether its products take more than some seconds

    def __str__(self):
        return self.name


def case(module, name, t=500, scale=1.0, path="linearised", needs=(), **flags):
    """Register a function as a case of an adapter."""

    def register(make):
        needed = (needs,) if isinstance(needs, str) else needs
        found = Case(name, make, t, scale, path, needed, **flags)
        CASES.setdefault(module, []).append(found)
        return make

    return register


def cases(module, products=False):
    """Parametrise a test over the cases of an adapter; of products those that are slow are so."""
    import adapter_cases_diffusers  # noqa: F401
    import adapter_cases_flows  # noqa: F401
    import adapter_cases_images  # noqa: F401
    import adapter_cases_libraries  # noqa: F401
    import adapter_cases_text  # noqa: F401

    def mark(found):
        slow = products and found.slow
        return pytest.param(found, marks=pytest.mark.slow) if slow else found

    return pytest.mark.parametrize("case", [*map(mark, CASES[module])], ids=str)


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


def need(case):
    """Skip unless the libraries of a case are there."""
    for module in case.needs:
        pytest.importorskip(module, exc_type=ImportError)


def check_value(case):
    """Hold D against the family's formula; return both precisions' errors."""
    need(case)
    single = error(case, torch.float32)
    double = error(case, torch.float64) if case.double else None
    assert single < 1e-6
    assert double is None or double < 1e-10
    return single, double


def check_products(case):
    """Hold J against PyTorch's autograd, and audit it; return the path and the error."""
    need(case)
    path, report, off = products(case)
    assert path == case.path
    assert report, report
    assert off < (1e-5 if case.rounds else 1e-10)
    return path, off
