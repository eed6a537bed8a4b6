"""Constraints: the error fulfils them, adjoints are adjoint, pseudo-inverses are NumPy's, samples
do not see each other.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator
from torch import nn
from torch.nn import functional as F

from jacobian_lab import ConvergenceWarning, InputError
from jacobian_lab.constraints.linear import Inpainting, LinearMap, blur
from jacobian_lab.constraints.losses import Loss, class_label, layers, segmentation, style
from jacobian_lab.constraints.masks import box, free_form, half, random_pixels
from jacobian_lab.constraints.separable import (
    Separable,
    Wiener,
    blurring,
    gaussian_blur,
    shrink,
    super_resolution,
)
from jacobian_lab.errors import DerivativeWarning

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


def test_the_wiener_filter_reads_the_variance_of_the_error_off_the_observations():
    generator = torch.Generator().manual_seed(0)
    matrix_of_a_line = blurring(16, 1.0).float()
    truth, sigma, r = torch.randn(64, 2, 16, 16, generator=generator), 0.05, 0.3
    wrong = r * torch.randn(truth.shape, generator=generator)
    y = matrix_of_a_line @ truth @ matrix_of_a_line.T + sigma * torch.randn(
        truth.shape, generator=generator
    )
    constraint = gaussian_blur(y, 1.0, sigma)
    assert isinstance(constraint, Wiener)
    e = constraint.error(truth + wrong)
    # r^2 given
    known = gaussian_blur(y, 1.0, sigma, sigma**2 / r**2).pseudo_inverse(
        constraint.missing(truth + wrong)
    )
    left, best, constant = (
        (wrong + change).square().mean()
        for change in (
            e,
            known,
            gaussian_blur(y, 1.0, sigma, sigma**2).pseudo_inverse(
                constraint.missing(truth + wrong)
            ),
        )
    )
    assert relative(e, known) < 0.1
    assert left < 1.01 * best < constant  # the best linear guess, which a damping of sigma^2 is not
    alone = gaussian_blur(y[:1], 1.0, sigma).error((truth + wrong)[:1])
    assert torch.allclose(alone, e[:1], atol=1e-6)
    quiet = matrix_of_a_line @ truth @ matrix_of_a_line.T
    # the noise explains all that is missing
    assert not gaussian_blur(quiet, 1.0, sigma).error(truth).any()


def test_super_resolution_is_the_antialiased_bicubic_and_keeps_constants():
    x = images()
    assert (
        relative(shrink(x, 4), F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True))
        < 1e-12
    )
    torch.testing.assert_close(shrink(torch.ones(1, 1, 8, 8), 4), torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(blurring(9, 1.3).sum(1), torch.ones(9, dtype=torch.float64))
    assert (
        relative(
            blurring(40, 2.0)[20, 18:23] / blurring(40, 2.0)[20, 20],
            np.exp(-np.array([4, 1, 0, 1, 4]) / 8),
        )
        < 1e-12
    )


@settings(deadline=None)  # a deadline would be a timed test
@given(st.integers(0, 1000), st.sampled_from(KINDS))
def test_samples_do_not_see_each_other(seed, kind):
    constraint, x0 = linear(kind), images(seed=seed)
    alone = constraint.select(slice(1, 2))
    torch.testing.assert_close(
        alone.error(x0[1:2]), constraint.error(x0)[1:2], rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(alone.residual(x0[1:2]), constraint.residual(x0)[1:2])


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


def test_the_error_of_a_loss_brings_the_linearised_loss_to_its_target():
    wanted = 0.3 * images(seed=3)
    # linear where positive
    loss = Loss(lambda x: (x * wanted).flatten(1).sum(1).clamp(min=0) * 0.01, target=0.001)
    x0 = 0.3 * images(seed=3)
    assert loss.residual(x0).min() > 0
    assert loss.residual(x0 + loss.error(x0)).max() < 1e-12
    assert not loss.error(-x0).any()  # fulfilled
    # almost no gradient: the change is bounded
    flat = Loss(lambda x: 1 + 1e-9 * x.flatten(1).sum(1))
    assert flat.error(x0).abs().max() == pytest.approx(1)
    with pytest.warns(DerivativeWarning, match="zero for 3 of 3 samples"):
        assert not Loss(lambda x: 1 + 0 * x.flatten(1).sum(1)).error(x0).any()
    with pytest.raises(InputError, match=r"the loss returned shape \(\) for 3 samples"):
        Loss(lambda x: x.sum()).error(x0)


@pytest.mark.parametrize("kind", ["class", "segmentation", "style"])
def test_steps_along_the_error_fulfil_a_networks_constraint(kind):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(6, 4, 3, padding=1)
    )
    network = network.double()
    labels = torch.randint(0, 4, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    pooled = torch.nn.Sequential(network, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    loss = {
        "class": lambda: class_label(pooled, torch.tensor([1, 2, 3])),
        "segmentation": lambda: segmentation(network, labels),
        "style": lambda: style(images(1, seed=7), layers(network, ["0", "2"])),
    }[kind]()
    x0 = images()
    before = loss.residual(x0)
    for _ in range(300):
        x0 = x0 + loss.error(x0)
    assert (loss.residual(x0) < 0.3 * before).all()
    assert not any(p.grad is not None for p in network.parameters())


def test_layers_are_found_by_name():
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1))
    assert layers(network, ["0"])(images().float())[0].shape == (3, 3, 8, 8)
    with pytest.raises(InputError, match="no layer body: it has 0"):
        layers(network, ["body"])


def test_masks():
    shape = (1, 16, 12)
    assert all(
        half(shape, side).float().mean() == 0.5 for side in ("left", "right", "top", "bottom")
    )
    assert half(shape, "top")[0, :8].all()
    assert int((~box(shape, 4)).sum()) == 16
    assert not box(shape, 4)[0, 7, 5]
    assert int(random_pixels(shape, 0.25, 3).sum()) == 48
    assert not torch.equal(random_pixels(shape, 0.25, 3), random_pixels(shape, 0.25, 4))
    drawn = free_form(shape, seed=1)
    assert 0.2 < drawn.float().mean() < 0.95
    assert torch.equal(drawn, free_form(shape, seed=1))
    for call in (
        lambda: half(shape, "middle"),
        lambda: box(shape, 16),
        lambda: random_pixels(shape, 0.0),
        lambda: free_form(shape, 0),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Inpainting(images(), half(SHAPE).double()), "the mask must be boolean"),
        (
            lambda: Inpainting(images(), half((2, 8, 6))),
            r"a mask of shape \(1, 8, 6\) does not fit images of \(3, 2, 8, 8\)",
        ),
        (
            lambda: Inpainting(images(), torch.zeros(1, 8, 8, dtype=torch.bool)),
            "no pixel of a sample as known",
        ),
        (lambda: Inpainting(images() / 0, half(SHAPE)), "must be floating point and finite"),
        (
            lambda: Inpainting(images(), half(SHAPE), sigma=-1),
            "sigma and damping must be at least 0",
        ),
        (lambda: super_resolution(images(), 2).error(images()), "images of shape"),
        (
            lambda: Inpainting(images(2), half(SHAPE)).residual(images(3)),
            "2 observations for 3 samples",
        ),
        (lambda: shrink(images(), 3), "the factor must divide the side of the image, 8: got 3"),
        (lambda: Separable(images(), torch.eye(8), torch.eye(4)), "matrices of"),
        (lambda: blur(images(), torch.ones(2, 3)), "odd height and width"),
        (lambda: gaussian_blur(images(), 0.0), "width of the blur must be positive"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pseudo_inverse_of_contradictory_observations_is_that_of_least_squares(dtype):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((20, 12))
    y = A @ rng.standard_normal((12, 2)) + 0.01 * rng.standard_normal((20, 2))
    twice = np.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    for matrix, observed, shape in (
        (A, y, (1, 3, 4)),
        (twice, np.array([[1.0], [1.1], [0.3]]), (1, 2, 2)),
    ):
        constraint = LinearMap.from_operator(
            torch.tensor(observed.T, dtype=dtype), aslinearoperator(matrix), shape
        )
        found = (
            constraint.error(torch.zeros(observed.shape[1], *shape, dtype=dtype))
            .flatten(1)
            .numpy()
            .T
        )
        assert relative(found, np.linalg.pinv(matrix) @ observed) < 1e-4


def test_too_few_steps_of_conjugate_gradients_warn():
    y = images(seed=3).double()
    weights = torch.linspace(0.01, 1, y[0].numel(), dtype=torch.float64).reshape(y[0].shape)
    constraint = LinearMap(y, lambda x: x * weights, lambda u: u * weights, steps=2)
    with pytest.warns(
        ConvergenceWarning,
        match="2 steps of conjugate gradients has not converged for 3 of 3 samples",
    ):
        constraint.error(torch.zeros_like(y))


def test_one_image_in_colour_is_one_observation():
    y, mask = images(seed=4, count=1, shape=(3, 8, 8))[0], torch.rand(1, 8, 8) > 0.5
    x0 = images(seed=5, shape=(3, 8, 8))
    for constraint in (
        lambda y: Inpainting(y, mask),
        lambda y: super_resolution(y[..., ::2, ::2], 2),
        lambda y: blur(y, torch.ones(1, 1)),
    ):
        assert torch.equal(constraint(y).residual(x0), constraint(y[None]).residual(x0))


def test_losses_work_in_inference_mode_and_layers_come_before_an_activation_in_place():
    network, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True)).double(), images()
    with torch.no_grad():
        (found,) = layers(network, ["0"])(x)
        assert torch.equal(found, network[0](x))
    loss = Loss(lambda z: z.square().mean((1, 2, 3)))
    with torch.inference_mode():
        error = loss.error(images())
    assert torch.equal(error, loss.error(x))
