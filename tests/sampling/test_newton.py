import numpy as np
import pytest
import torch

from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    dynamic_step_size,
    newton_direction,
)
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.newton import Newton, newton_step
from jacobian_lab.sampling.sampler import ddim_step
from jacobian_lab.sampling.step_size import Dynamic, Fixed, Secant

from conftest import make_gaussian, relative


def test_one_exact_step_on_a_gaussian_prior_reaches_the_target(schedule_and_time):
    """D is affine there, so Newton's method ends after one step."""
    schedule, t = schedule_and_time
    oracle = make_gaussian(schedule)
    denoiser = oracle.denoiser("v")
    g = torch.Generator().manual_seed(5)
    x_t, target = torch.randn(2, 1, *oracle.shape, generator=g, dtype=torch.float64)
    e = target - denoiser(x_t, t)
    moved = x_t + newton_direction(JacobianOperator(denoiser, x_t, t), e, "exact", rcond=1e-14)
    assert (denoiser(moved, t) - target).abs().max() < 1e-8


def test_inexact_equals_gradient_where_j_is_symmetric(oracle_at):
    oracle, x_t, t = oracle_at
    J = JacobianOperator(oracle.denoiser("epsilon"), x_t, t)
    e = np.random.default_rng(0).standard_normal(12)
    assert relative(newton_direction(J, e, "inexact"), newton_direction(J, e, "gradient")) < 1e-10


def test_full_krylov_equals_exact_on_a_gaussian():
    oracle = make_gaussian(DiscreteSchedule.linear())
    x_t = torch.randn(1, *oracle.shape, dtype=torch.float64)
    J = JacobianOperator(oracle.denoiser("sample"), x_t, 900)
    e = np.random.default_rng(0).standard_normal(12)
    assert relative(J @ newton_direction(J, e, "krylov", steps=12), e) < 1e-6


def test_dynamic_step_size_moves_the_largest_entry_by_c():
    direction = torch.tensor([[0.5, -4.0]])
    assert dynamic_step_size(direction, 0.2) == pytest.approx(0.05)
    assert dynamic_step_size(direction.numpy(), 0.2) == pytest.approx(0.05)
    with pytest.raises(InputError, match="zero everywhere"):
        dynamic_step_size(torch.zeros(2), 0.2)
    with pytest.raises(InputError, match="not finite"):
        dynamic_step_size(torch.tensor([1.0, float("nan")]), 0.2)


def test_bad_errors_and_kinds_are_named():
    J = np.eye(4)
    with pytest.raises(
        InputError,
        match="unknown direction 'newton': expected one of inexact, gradient, exact, krylov",
    ):
        newton_direction(J, np.ones(4), "newton")
    with pytest.raises(InputError, match=r"e has 3 entries, shape \(1, 3\): expected 4"):
        newton_direction(J, torch.ones(1, 3), "inexact")
    for e in (np.array([1, 0, 0, 0]), torch.tensor([1, 0, 0, 0]), np.array([1j, 0, 0, 0])):
        with pytest.raises(InputError, match="must be real floating point"):
            newton_direction(J, e, "inexact")
    with pytest.raises(InputError, match="1 values of 4 that are not finite"):
        newton_direction(J, np.array([1, np.inf, 0, 0]), "gradient")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"products": "fd"}, "unknown products 'fd': expected one of exact, forward, central"),
        ({"step_size": 0.1}, r"got 0.1; for a fixed lambda pass Fixed\(lambda\)"),
        ({"steps": 1.5}, "steps must be a whole number: got 1.5"),
    ],
)
def test_what_makes_no_newton_step_is_refused_at_once(options, message):
    with pytest.raises(InputError, match=message):
        Newton(**options)


class Nearer(Constraint):
    """That x_0 be zero."""

    def error(self, x0):
        return -x0

    def residual(self, x0):
        return x0.flatten(1).square().mean(1).sqrt()


@pytest.mark.parametrize("rule", [Dynamic(0.2), Secant(0.2), Fixed(0.1)])
def test_a_step_by_differences_waits_for_nothing(rule):
    """On a device without values, to ask for one is an error; the host of a GPU would wait."""
    denoiser = Denoiser(lambda x, t: 0.5 * x, DiscreteSchedule.linear(), "v", (1, 4, 4))
    x = torch.empty(3, 1, 4, 4, device="meta")
    J = BatchJacobian(denoiser, x, 500, like=BatchJacobian(denoiser, torch.zeros(x.shape), 500))
    moved = newton_step(J, Nearer(), Newton("inexact", step_size=rule))
    assert ddim_step(denoiser, moved, J.d, 500, 400).device.type == "meta"
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(moved.isfinite().all())
