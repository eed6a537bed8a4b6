"""What no gradient explains, and what solenoidal fields explain, of fields whose parts are
known.
"""

import pytest
import torch

from studies.claims.helmholtz import (
    gradient_residual,
    potentials,
    solenoidal_fields,
    solenoidal_residual,
)

N = 4


@pytest.fixture(scope="module")
def x():
    """Samples of N(0, I), whose score is -x."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(3000, N, generator=g, dtype=torch.float64)


@pytest.fixture(scope="module")
def A():
    return torch.randn(N, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def bounds(x, field):
    """The lower and the upper bound of the solenoidal share."""
    whole = field[len(x) // 2 :].square().sum()
    upper = gradient_residual(x, field).sum() / whole
    lower = 1 - solenoidal_residual(x, field, -x).sum() / whole
    return float(lower), float(upper)


def test_a_gradient_has_no_solenoidal_part_and_a_rotation_no_other(x, A):
    for gradient in (x @ (A + A.T), torch.cos(x)):  # the latter of the sum of sines
        lower, upper = bounds(x, gradient)
        assert lower < 0.02
        assert upper < 0.01
    lower, upper = bounds(x, x @ (A - A.T))  # div(p u) = 0 for p = N(0, I)
    assert lower > 0.99
    assert upper > 0.9


def test_the_bounds_enclose_the_share_of_a_mixed_field(x, A):
    share = float((A - A.T).square().sum() / (4 * A.square().sum()))
    lower, upper = bounds(x, 2 * x @ A)
    assert lower == pytest.approx(share, abs=0.06)
    assert upper == pytest.approx(share, abs=0.06)


def test_gradients_have_symmetric_jacobians_and_solenoidal_fields_no_divergence(x):
    J = torch.autograd.functional.jacobian(lambda p: potentials(p[None], 5)[1][0].sum(1), x[0])
    torch.testing.assert_close(J, J.T)
    assert J.abs().max() > 1

    def moved(point):
        """p u, up to a constant, for all fields."""
        return (
            torch.exp(-point.square().sum() / 2) * solenoidal_fields(point[None], -point[None])[0]
        )

    J = torch.autograd.functional.jacobian(moved, x[1])  # (n, F, n)
    divergence = torch.einsum("ifi->f", J)
    assert J.abs().max() > 0.1
    assert divergence.abs().max() < 1e-12
