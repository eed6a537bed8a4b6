"""Inpainting, any linear map, and blurs by a kernel."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.sparse.linalg import aslinearoperator

import mnist
from jacobian_lab import ConvergenceWarning, InputError
from jacobian_lab.constraints.linear import Inpainting, LinearMap, blur
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import (
    super_resolution,
)

from conftest import relative

SHAPE = (2, 8, 8)


def images(count=3, seed=0, shape=SHAPE):
    return torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


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
        (
            lambda: Inpainting(images() / 0, half(SHAPE)),
            "y has 192 values of 384 that are not finite",
        ),
        (lambda: Inpainting(images(), half(SHAPE), sigma=-1), "sigma must be at least 0"),
        (
            lambda: Inpainting(images(2), half(SHAPE)).residual(images(3)),
            "2 observations for 3 samples",
        ),
        (lambda: blur(images(), torch.ones(2, 3)), "odd height and width"),
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


KERNEL = torch.tensor([[0.0, 0.1, 0.3], [0.0, 0.55, 0.05], [0.0, 0.0, 0.0]])
"""Of a motion: not symmetric about its middle, and it can be inverted, since the middle outweighs
the others.
"""


@pytest.fixture(scope="module")
def digits():
    return mnist.digits("held-out")[0][:3]


def test_blur_convolves_as_scipy_does_and_correlates_if_asked(digits):
    for correlate, scipys in ((False, scipy.ndimage.convolve), (True, scipy.ndimage.correlate)):
        constraint = blur(digits.double(), KERNEL.double(), correlate=correlate)
        expected = scipys(
            digits.double().numpy(), KERNEL.double().numpy()[None, None], mode="mirror"
        )
        assert relative(constraint.forward(digits.double()), expected) < 1e-12
    point = torch.zeros(1, 1, 7, 7)
    constraint = blur(point, KERNEL)
    point[..., 3, 3] = 1
    # the image of a point is the kernel
    assert torch.equal(constraint.forward(point)[0, 0, 2:5, 2:5], KERNEL)


def test_a_kernel_turned_about_costs_decibels(digits):
    """A user's y is a convolution: it is undone to rounding, and taken for a correlation it is
    not.
    """
    y = torch.from_numpy(
        scipy.ndimage.convolve(
            digits.double().numpy(), KERNEL.double().numpy()[None, None], mode="mirror"
        )
    )
    psnr = []
    for correlate in (False, True):
        constraint = blur(y, KERNEL.double(), correlate=correlate)
        found = constraint.pseudo_inverse(y).clamp(-1, 1)
        psnr.append(float(10 * torch.log10(4 / (found - digits).square().mean())))
    assert psnr[0] > 90
    assert psnr[1] < 20


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (torch.tensor([[float("nan")]]), "the kernel must be finite and not zero"),
        (torch.tensor([[0.1, float("inf"), 0.1]]), "the kernel must be finite and not zero"),
        (torch.zeros(3, 3), "the kernel must be finite and not zero"),
        (torch.ones(65, 1) / 65, "reaches beyond the mirror image of 32x32 pixels"),
        (torch.ones(1, 65) / 65, "reaches beyond the mirror image of 32x32 pixels"),
        (torch.ones(2, 3), "odd height and width"),
        (torch.ones(3), "odd height and width"),
    ],
)
def test_a_kernel_that_blurs_nothing_is_refused(kernel, message, digits):
    with pytest.raises(InputError, match=message):
        blur(digits, kernel)


@pytest.mark.parametrize("side", [160, 256])
def test_sums_over_large_images_in_half_precision_do_not_overflow(side):
    known = Inpainting(torch.zeros(1, 3, side, side).half(), half((3, side, side)))
    x0 = torch.full((1, 3, side, side), 0.5).half()
    assert known.residual(x0).item() == 0.5
    blurred = blur(torch.zeros(1, 3, side, side).half(), torch.ones(1, 1))
    assert blurred.residual(x0).item() == 0.5


@pytest.mark.parametrize(("observed", "given"), [(1, 3), (3, 1)])
@pytest.mark.parametrize("ask", ["error", "residual", "project"])
def test_channels_are_not_repeated(observed, given, ask):
    """A gray y was asked of three channels, and the residual was sqrt(3) times what is missing."""
    y, x0 = images(shape=(observed, 8, 8)), images(shape=(given, 8, 8))
    for constraint in (
        Inpainting(y, half(SHAPE)),
        blur(y, torch.ones(1, 1)),
        super_resolution(y[..., ::2, ::2], 2),
        LinearMap(y, lambda x: 2 * x, lambda u: 2 * u),
    ):
        for _ in range(2):
            with pytest.raises(InputError, match=r"images of shape \(3, ., 8, 8\)"):
                getattr(constraint, ask)(x0)
        assert getattr(constraint, ask)(images(shape=(observed, 8, 8))).isfinite().all()


def test_what_a_mask_sees_of_series_is_told_before_anything_is_missing():
    y, mask = images(4, shape=(2, 16)), torch.arange(16) % 3 == 0
    assert torch.equal(Inpainting(y, mask).seen(y), y * mask)  # it was taken for one image
    assert torch.equal(Inpainting(y[:1], mask).seen(y), y * mask)
    with pytest.raises(InputError, match="images of shape"):
        Inpainting(y, mask).seen(y[..., :5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [8, 160])
def test_conjugate_gradients_in_half_precision_do_not_overflow(side, dtype):
    """Their sums of squares were infinite, and the error was zero without a word."""
    wanted = torch.ones(1, 3, side, side, dtype=dtype)
    wanted[..., 0] = -1
    missed = -wanted
    for A in (lambda x: x, lambda x: 0.5 * x):
        constraint = LinearMap(A(wanted), A, A)
        assert constraint.error(missed).dtype == dtype
        assert relative(constraint.error(missed).float(), 2 * wanted.float()) < 1e-2
        assert constraint.residual(missed + constraint.error(missed)) < 1e-2


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([False, True, False, True])])
def test_maps_of_the_samples_own_are_selected_with_them(index):
    generator = torch.Generator().manual_seed(0)
    weights, y, x = (torch.randn(4, 1, 3, 3, generator=generator) for _ in range(3))
    whole = LinearMap(y, lambda x: weights * x, lambda u: weights * u)
    some = whole.select(index)
    torch.testing.assert_close(some.error(x[index]), whole.error(x)[index])
    torch.testing.assert_close(some.adjoint(y[index]), (weights * y)[index])
    first = some.select(torch.tensor([True, False]))
    torch.testing.assert_close(first.error(x[index][:1]), whole.error(x)[index][:1])
    alike = LinearMap(y, lambda x: 2 * x, lambda u: 2 * u)
    assert alike.select(index).forward(x[:1]).shape == x[:1].shape  # one map for all


def test_what_the_caller_writes_into_its_tensors_afterwards_changes_nothing():
    y, mask = torch.zeros(1, 1, 8, 8), half((1, 8, 8))
    known, map_ = Inpainting(y, mask), LinearMap(y, lambda x: x, lambda u: u)
    y += 1
    mask[:] = True
    assert known.y.abs().max() == map_.y.abs().max() == 0
    assert known.count().item() == 32


def test_maps_that_differ_between_the_first_and_the_last_sample_only_are_seen():
    weights = torch.tensor([1.0, 2, 3, 1]).reshape(4, 1, 1, 1)  # the last one's is the first's

    def product(x):
        return weights[: len(x)] * x

    y = torch.ones(4, 1, 2, 2)
    some = LinearMap(y, product, product).select(torch.tensor([False, True, True, False]))
    torch.testing.assert_close(some.forward(y[:2]), weights[1:3] * y[:2])


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4])
def test_in_half_precision_what_is_small_is_inverted_as_what_is_not(size):
    """Products of small residuals vanished: A^+ y missed y by up to 10^4 times its size."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(20, 20, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    A = (left * torch.logspace(0, -2, 20, dtype=torch.float64)) @ right
    y = (torch.rand(4, 20, generator=generator, dtype=torch.float64) * 2 - 1) @ A.T
    A = A.half()
    constraint = LinearMap(y.half(), lambda x: x @ A.T, lambda u: u @ A)
    given = (size * y).half()
    found = constraint.pseudo_inverse(given)
    assert found.dtype == torch.float16
    missed = found.double() @ A.double().T - given.double()
    assert (missed.norm(dim=1) < 5e-3 * given.double().norm(dim=1)).all()


def test_of_what_is_no_number_nothing_is_made():
    """A sample of NaN alone was said to want no change."""
    weights = torch.tensor([2.0, 1.0, 0.5])
    constraint = LinearMap(torch.ones(1, 3), lambda x: x * weights, lambda u: u * weights)
    assert constraint.error(torch.full((1, 3), torch.nan)).isnan().all()
    two = constraint.error(torch.tensor([[torch.nan] * 3, [0.0] * 3]))
    assert two[0].isnan().all()
    torch.testing.assert_close(two[1], 1 / weights)


@pytest.mark.parametrize("correlate", [False, True])
def test_the_caller_may_write_into_the_kernel(correlate):
    kernel, x = torch.ones(3, 3) / 9, torch.full((1, 1, 6, 6), 0.5)
    constraint = blur(x, kernel, correlate=correlate)
    kernel.zero_()
    torch.testing.assert_close(constraint.forward(x), x)
