"""What differences can tell of products, and what they must not be asked."""

import pytest
import torch

from jacobian_lab.derivative.agreement import Comparison
from jacobian_lab.derivative.probes import probe

from conftest import relative

X = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EPS = {dtype: float(torch.finfo(dtype).eps) for dtype in (torch.float32, torch.float64)}


def compared(function, derivative, dtype=torch.float64, x=X, eps=None):
    x = x.to(dtype)
    v = probe(x)[0]
    return Comparison(function, x, v, eps or EPS[dtype]), derivative(x) * v


FUNCTIONS = {
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "curved": (lambda x: torch.sin(30 * x), lambda x: 30 * torch.cos(30 * x)),
    "very curved": (lambda x: torch.sin(1000 * x), lambda x: 1000 * torch.cos(1000 * x)),
    "kinks": (lambda x: x.abs() + x, lambda x: x.sign() + 1),
    "offset": (lambda x: 100 + x**2, lambda x: 2 * x),
    "weak": (lambda x: 1 + 1e-3 * torch.tanh(x), lambda x: 1e-3 * (1 - torch.tanh(x) ** 2)),
}


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_right_products_agree(name, dtype):
    comparison, products = compared(*FUNCTIONS[name], dtype)
    verdict = comparison.verdict(products)
    assert verdict.agrees
    assert verdict.error < (1e-6 if dtype is torch.float64 else 3e-2)
    assert relative(comparison.value, FUNCTIONS[name][0](X.to(dtype))) < 10 * EPS[dtype]


@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float32, 7e-3), (torch.float32, 0.1), (torch.float64, 1e-6)]
)
@pytest.mark.parametrize("name", ["cube", "curved", "kinks"])
def test_wrong_products_do_not(name, dtype, share):
    comparison, products = compared(*FUNCTIONS[name], dtype)
    error = torch.randn(
        products.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).to(dtype)
    verdict = comparison.verdict(products + share * products.norm() * error / error.norm())
    assert not verdict.agrees
    assert verdict.error == pytest.approx(share, rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rough_functions_agree_as_far_as_they_can_be_resolved(dtype):
    eps = float(torch.finfo(dtype).eps)
    comparison, products = compared(
        lambda x: (x.to(dtype) ** 3).float(), lambda x: 3 * x**2, torch.float32, eps=eps
    )
    verdict = comparison.verdict(products)
    assert verdict.agrees
    assert verdict.resolved
    assert verdict.error < 20 * eps
    assert not comparison.verdict(0.5 * products).agrees


def test_what_differences_do_not_resolve_is_told():
    def noisy(x):
        return x + 1e-2 * torch.sin(1e9 * x)  # as good as noise

    comparison, products = compared(noisy, torch.ones_like)
    assert not comparison.verdict(products).resolved or comparison.verdict(products).error > 1e-3
    assert comparison.best()[1] > 1e-3


@pytest.mark.parametrize("slope", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_within_the_rounding_of_half_precision_are_not_confirmed(dtype, slope):
    def function(x):
        return (1 + slope * torch.tanh(x.to(dtype))).float()

    comparison, products = compared(
        function,
        lambda x: slope * (1 - torch.tanh(x) ** 2),
        torch.float32,
        eps=float(torch.finfo(dtype).eps),
    )
    right, wrong = (comparison.verdict(share * products) for share in (1, 1e-3))
    assert right.agrees
    assert not wrong.agrees or not wrong.resolved or wrong.flat
    assert wrong.error > 0.5


def test_a_zero_derivative_is_told_where_the_output_is_not_constant():
    flat, zero = compared(lambda x: torch.round(2 * x) / 2, torch.zeros_like)
    assert flat.verdict(zero).agrees
    assert flat.verdict(zero).flat
    constant, zero = compared(lambda x: 0 * x + 3, torch.zeros_like)
    assert constant.verdict(zero).agrees
    assert not constant.verdict(zero).flat


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e4])
def test_steps_fit_samples_of_any_size(scale):
    comparison, products = compared(
        lambda x: torch.tanh(x) + x**2,
        lambda x: 1 - torch.tanh(x) ** 2 + 2 * x,
        torch.float32,
        scale * X,
    )
    assert comparison.verdict(products).agrees


def test_components_along_a_direction_are_compared_alone():
    x, onto = X, torch.randn_like(X)
    v = probe(x)[0]
    comparison = Comparison(lambda x: x**3, x, v, EPS[torch.float64], onto=onto)
    along = (3 * x**2 * v * onto).sum() / onto.norm()
    assert comparison.verdict(along.reshape(1, 1)).agrees
    assert not comparison.verdict(1.01 * along.reshape(1, 1)).agrees


def test_a_function_of_one_sample_at_a_time_is_taken_so():
    def alone(x):
        if len(x) != 1:
            raise ValueError("a batch of one")
        return x**3

    comparison, products = compared(alone, lambda x: 3 * x**2)
    assert not comparison.together
    assert comparison.verdict(products).agrees


def rounded(seed, noise, wrong, common, one):
    """Whether `F' v`, or one component of it, wrong by a factor, agrees with differences of an F
    that is rounded by `noise`.
    """
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(32, 32, generator=g, dtype=torch.float64) / 32

    def F(x):
        y = x.flatten(1)
        f, digits = y @ A.T + 0.05 * y**3, noise * torch.sin(1e9 * y @ A)
        return (f * (1 + digits[:, :1]) if common else f + digits).reshape(x.shape)

    x, v, w = (torch.randn(1, 1, 4, 8, generator=g, dtype=torch.float64) for _ in range(3))
    w = w / w.norm() + F(x) / F(x).norm()
    Jv = (1 + wrong) * (v.flatten(1) @ A.T + 0.15 * x.flatten(1) ** 2 * v.flatten(1))
    eps = torch.finfo(torch.float64).eps
    if not one:
        return Comparison(F, x, v, eps).verdict(Jv.reshape(x.shape)).agrees
    along = (Jv * w.flatten(1)).sum(1, keepdim=True) / w.flatten(1).norm()
    return Comparison(F, x, v, eps, onto=w).verdict(along).agrees


@pytest.mark.parametrize("one", [True, False], ids=["a component", "a vector"])
@pytest.mark.parametrize("common", [True, False], ids=["a common factor", "each entry"])
@pytest.mark.parametrize("noise", [0.0, 1e-14, 1e-13, 1e-12])
def test_differences_that_agree_by_chance_do_not_refuse_right_products(noise, common, one):
    """Neighbouring steps may agree to more digits than they have: up to a fifth of the right
    products were refused, and one in a hundred before a second sweep.
    """
    assert not any(not rounded(seed, noise, 0.0, common, one) for seed in range(100))
    assert not any(rounded(seed, noise, 1e-4, common, one) for seed in range(100))
