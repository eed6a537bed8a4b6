"""Flows whose time runs from noise to data, against the libraries' own paths."""

import pytest
import torch
from torch import nn

from jacobian_lab import ContinuousSchedule, InputError, VarianceExploding, load

from adapter_cases import cases, check_products, check_value


@cases("flows")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("flows", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.func.jvp's own
def test_d_can_be_had_without_gradients_and_inside_a_derivative():
    """The path's rates are derivatives themselves."""
    network, x = nn.Linear(3, 3).eval(), torch.randn(2, 3)
    path = ContinuousSchedule(lambda t: (1 - t) ** 2, lambda t: 1 - (1 - t) ** 2)
    for of in ("linear", "trigonometric", path, VarianceExploding(1.0)):
        D = load(lambda x, s: network(x), family="flow-matching", shape=(3,), path=of)
        wanted = D(x, 0.5)
        with torch.inference_mode():
            assert torch.equal(D(x, 0.5), wanted)
        assert torch.equal(torch.func.vmap(lambda z, D=D: D(z, 0.5))(x), wanted)
        value, moved = torch.func.jvp(lambda z, D=D: D(z, 0.5), (x,), (x,))
        assert torch.equal(value, wanted)
        J = torch.func.jacrev(lambda z, D=D: D(z, 0.5))(x[0])
        torch.testing.assert_close(moved[0], J @ x[0])


def test_a_velocity_that_says_nothing_of_x_0_is_told():
    """alpha' = alpha = 0 at t = 1."""
    path = ContinuousSchedule(lambda t: (1 - t) ** 2, lambda t: 1 - (1 - t) ** 2)
    D = load(lambda x, s: x, family="flow-matching", shape=(3,), path=path)
    assert D(torch.ones(3), 0.99).isfinite().all()
    with pytest.raises(InputError, match="is not finite at t = 1"):
        D(torch.ones(3), 1.0)
