"""Functions of numpy and JAX arrays."""

import numpy as np
import pytest
import torch

from jacobian_lab import DerivativeWarning, InputError, JacobianOperator, audit, load

from adapter_cases import cases, check_products, check_value
from adapter_cases_flows import ARRAYS, MAP, jvp, linear_map, vjp


@cases("arrays")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("arrays", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


def exact(x, t):
    """J of D = x - t F in closed form."""
    slope = (1 - np.tanh(MAP @ x) ** 2) * (1 + t)
    return np.eye(6) - t * slope[:, None] * MAP


def test_without_derivatives_j_v_is_by_differences_and_j_t_u_is_refused():
    denoiser = load(linear_map, **ARRAYS)
    x = torch.randn(1, 6, dtype=torch.float64)
    with pytest.warns(DerivativeWarning, match="J v by central differences"):
        J = JacobianOperator(denoiser, x, 0.5)
    assert J.path == "central difference"
    assert np.abs(J.dense() - exact(x[0].numpy(), 0.5)).max() < 1e-8
    with pytest.raises(InputError, match=r"J\^T u needs a derivative"):
        _ = J.T @ np.ones(6)


def test_with_its_own_derivatives_j_is_exact():
    J = JacobianOperator(
        load(linear_map, **ARRAYS, jvp=jvp, vjp=vjp), torch.ones(1, 6).double(), 0.5
    )
    assert np.abs(J.dense() - exact(np.ones(6), 0.5)).max() < 1e-14
    assert audit(J)


def test_a_derivative_that_is_wrong_is_noticed():
    wrong = load(linear_map, **ARRAYS, jvp=lambda x, t, v: 2 * jvp(x, t, v), vjp=vjp)
    with pytest.warns(DerivativeWarning, match="disagrees with differences"):
        J = JacobianOperator(wrong, torch.ones(1, 6).double(), 0.5)
    assert J.path == "central difference"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**ARRAYS, "jvp": jvp}, "pass both jvp and vjp"),
        ({**ARRAYS, "library": "cupy"}, "unknown library 'cupy': expected one of numpy, jax"),
        ({"family": "arrays", "shape": (6,)}, "the family 'arrays' needs the option schedule"),
    ],
)
def test_what_does_not_fit_is_told(options, message):
    with pytest.raises(InputError, match=message):
        load(linear_map, **options)


def test_a_sample_may_be_in_bfloat16():
    D = load(linear_map, **ARRAYS)
    x = torch.ones(1, 6)
    assert torch.allclose(D(x.bfloat16(), 0.5).float(), D(x, 0.5), atol=0.05)
