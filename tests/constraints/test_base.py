"""Constraints: the error fulfils them, adjoints are adjoint, pseudo-inverses are NumPy's, samples
do not see each other.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

from jacobian_lab import InputError
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.linear import Inpainting, LinearMap, blur
from jacobian_lab.constraints.losses import Loss
from jacobian_lab.constraints.masks import half, random_pixels
from jacobian_lab.constraints.separable import (
    blurring,
    gaussian_blur,
    shrink,
    super_resolution,
)

from conftest import relative

SHAPE = (2, 8, 8)


def images(count=3, seed=0, shape=SHAPE):
    return torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def linear(kind, sigma=0.0):
    x = images(seed=9)
    match kind:
        case "half":
            return Inpainting(x, half(SHAPE), sigma)
        case "one mask each":
            return Inpainting(
                x, torch.stack([random_pixels(SHAPE, 0.3, seed) for seed in range(3)]), sigma
            )
        case "super-resolution":
            return super_resolution(shrink(x, 4), 4, sigma)
        case "gaussian blur":
            return gaussian_blur(blurring(8, 0.7) @ x @ blurring(8, 0.7).T, 0.7, sigma, sigma**2)
        case "motion blur":
            return blur(x, torch.tensor([[0.1, 0.0, 0.0], [0.2, 0.5, 0.1], [0.0, 0.1, 0.0]]), sigma)
        case "scipy":
            A = np.random.default_rng(0).standard_normal((20, 128))
            return LinearMap.from_operator(
                images(seed=9, shape=(20, 1, 1))[..., 0, 0], aslinearoperator(A), SHAPE, sigma
            )
    raise AssertionError(kind)


KINDS = ("half", "one mask each", "super-resolution", "gaussian blur", "motion blur", "scipy")


def matrix(constraint, of=lambda c: c.forward):
    """A of the first sample, (m, n), column by column."""
    one = constraint.select(slice(0, 1))
    units = torch.eye(128, dtype=torch.float64).reshape(128, 1, *SHAPE)
    return np.stack([of(one)(unit).flatten().numpy() for unit in units], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adjoint_is_one(kind):
    constraint = linear(kind)
    x, u = (
        images(),
        torch.randn(
            constraint.y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        ),
    )
    left, right = (
        (constraint.forward(x) * u).flatten(1).sum(1),
        (x * constraint.adjoint(u)).flatten(1).sum(1),
    )
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pseudo_inverse_is_numpys(kind):
    constraint = linear(kind)
    A = matrix(constraint)
    u = constraint.forward(images())
    found = constraint.pseudo_inverse(u)[0].flatten().numpy()
    assert relative(found, np.linalg.pinv(A, rcond=1e-7) @ u[0].flatten().numpy()) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_x0_plus_its_error_fulfils_it_by_the_smallest_change(kind):
    constraint = linear(kind)
    x0 = images()
    fulfilled = x0 + constraint.error(x0)
    if kind != "motion blur":  # whose y no image gives
        assert constraint.residual(fulfilled).max() < 1e-4
        torch.testing.assert_close(constraint.project(x0), fulfilled)
    A = matrix(constraint)
    e = constraint.error(x0)[0].flatten().numpy()
    # in the row space: nothing is changed that is not seen
    inside = A.T @ np.linalg.lstsq(A.T, e, rcond=None)[0]
    assert relative(inside, e) < 1e-6
    assert relative(constraint.seen(constraint.error(x0)), constraint.error(x0)) < 1e-3


@pytest.mark.parametrize("kind", ["half", "super-resolution", "gaussian blur", "scipy"])
def test_noise_is_neither_fitted_nor_inverted(kind):
    constraint = linear(kind, sigma=0.1)
    assert constraint.damping == (0 if kind == "half" else pytest.approx(0.01))
    x0 = images()
    e = constraint.error(x0)
    A, y = matrix(constraint), constraint.y[0].flatten().numpy()
    missing = y - A @ x0[0].flatten().numpy()
    rms = np.sqrt((missing**2).sum() / (int(constraint.count()[0]) if kind == "half" else len(y)))
    damped = A.T @ np.linalg.pinv(A @ A.T + constraint.damping * np.eye(len(A))) @ missing
    assert relative(e[0].flatten(), damped * (1 - 0.1 / rms)) < 1e-4
    near = constraint.pseudo_inverse(constraint.y)
    explained = Inpainting(x0, half(SHAPE), sigma=0.1).error(x0 + 0.05) if kind == "half" else None
    assert explained is None or not explained.any()  # 0.05 is less than the noise
    assert near.isfinite().all()
    with pytest.raises(InputError, match="would copy the noise"):
        constraint.project(x0)


@settings(deadline=None)  # a deadline would be a timed test
@given(st.integers(0, 1000), st.sampled_from(KINDS))
def test_samples_do_not_see_each_other(seed, kind):
    constraint, x0 = linear(kind), images(seed=seed)
    alone = constraint.select(slice(1, 2))
    torch.testing.assert_close(
        alone.error(x0[1:2]), constraint.error(x0)[1:2], rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(alone.residual(x0[1:2]), constraint.residual(x0)[1:2])


@pytest.mark.parametrize("kind", ["linear", "loss", "sum"])
def test_some_of_the_samples_are_told_what_the_whole_tells_them(kind):
    x0, targets, kept = images(), images(seed=1), torch.tensor([True, False, True])
    linear = Inpainting(targets, half(SHAPE))
    loss = Loss(lambda x: (x - targets).flatten(1).square().mean(1))  # whose targets are whose?
    whole = {"linear": linear, "loss": loss, "sum": linear + 0.5 * loss}[kind]
    some = whole.select(kept)
    for ask in ("error", "residual", "seen"):
        assert relative(getattr(some, ask)(x0[kept]), getattr(whole, ask)(x0)[kept]) < 1e-12
    if kind == "linear":
        for part in (some, Constraint.select(linear, kept)):
            assert torch.equal(part.project(x0[kept]), linear.project(x0)[kept])


def test_sums_add_errors_of_one_scale():
    x0 = images()
    left, right = (
        Inpainting(images(seed=1), half(SHAPE)),
        Inpainting(images(seed=2), half(SHAPE, "right")),
    )
    both = left + right
    assert both.residual(x0 + both.error(x0)).max() < 1e-12
    weighted = 0.5 * left + 2.0 * right
    torch.testing.assert_close(weighted.error(x0), 0.5 * left.error(x0) + 2 * right.error(x0))
    torch.testing.assert_close((3.0 * weighted).error(x0), 3 * weighted.error(x0))
    squares = weighted.residual(x0).square() + left.residual(x0).square()
    torch.testing.assert_close((weighted + left).residual(x0).square(), squares)
    with pytest.raises(InputError, match="Sum has no exact projection"):
        both.project(x0)


def test_a_sum_of_large_residuals_in_half_precision_is_finite():
    loss = Loss(lambda x: (x + 300).flatten(1).mean(1))
    x0 = torch.zeros(2, *SHAPE, dtype=torch.float16)
    assert (3 * loss + 4 * loss).residual(x0).tolist() == [1500, 1500]  # squares overflow
