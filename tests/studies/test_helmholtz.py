"""What no gradient explains, of fields whose parts are known."""

import pytest
import torch

from studies.claims.helmholtz import gradient_residual, potential_gradients

N = 4


@pytest.fixture(scope="module")
def x():
    g = torch.Generator().manual_seed(0)
    return torch.randn(3000, N, generator=g, dtype=torch.float64)


def share(x, field):
    rest, whole = gradient_residual(x, field)
    assert rest.shape == whole.shape == (len(x) // 2,)
    return float(rest.sum() / whole.sum())


def test_a_gradient_leaves_nothing_and_a_rotation_leaves_all(x):
    g = torch.Generator().manual_seed(1)
    A = torch.randn(N, N, generator=g, dtype=torch.float64)
    symmetric, skew = x @ (A + A.T), x @ (A - A.T)
    assert share(x, symmetric) < 1e-6
    assert share(x, torch.cos(x)) < 0.01  # the gradient of the sum of sines
    # of x ~ N(0, I) a rotation moves no density: div(p u) = 0
    assert share(x, skew) == pytest.approx(1, abs=0.2)
    both = share(x, symmetric + skew)
    expected = (A - A.T).square().sum() / (4 * A.square().sum())
    assert both == pytest.approx(float(expected), abs=0.1)


def test_the_gradients_have_symmetric_jacobians(x):
    def field(point):
        return potential_gradients(point[None], seed=3)[0].sum(1)

    J = torch.autograd.functional.jacobian(field, x[0])
    torch.testing.assert_close(J, J.T)
    assert J.abs().max() > 1
