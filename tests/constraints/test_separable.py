"""Super-resolution and Gaussian blur."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jacobian_lab import InputError
from jacobian_lab.constraints.separable import (
    Separable,
    Wiener,
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: super_resolution(images(), 2).error(images()), "images of shape"),
        (lambda: shrink(images(), 3), "the factor must divide the side of the image, 8: got 3"),
        (lambda: Separable(images(), torch.eye(8), torch.eye(4)), "matrices of"),
        (lambda: Separable(images(), torch.eye(8), torch.ones(8)), "columns must be a matrix"),
        (lambda: Separable(images(), torch.eye(8) * 1j, torch.eye(8)), "rows is complex"),
        (lambda: Separable(images(), torch.eye(8) / 0, torch.eye(8)), "rows has 64 values of 64"),
        (lambda: gaussian_blur(images(), 0.0), "width of the blur, in pixels, must be positive"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_caller_may_write_into_the_matrices():
    """A was then another than that whose pseudo-inverse is taken."""
    rows, columns = (blurring(8, width) for width in (1.0, 1.2))
    constraint = Separable(images(), rows, columns)
    before = constraint.missing(0.5 * images())
    rows.zero_(), columns.zero_()
    assert torch.equal(constraint.missing(0.5 * images()), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [1.0, 3.0])
def test_in_half_precision_a_blur_without_noise_amplifies_no_rounding(dtype, width):
    """Weights of up to 1e6 overflowed, or multiplied the rounding of y: an error of 60 |x|."""
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    line = blurring(16, width).float()
    y = (line @ x @ line.T).to(dtype)
    constraint = gaussian_blur(y, width)
    e = constraint.error(torch.zeros_like(y))
    assert e.dtype == dtype
    assert e.float().norm() < 1.1 * x.norm()
    assert relative(constraint.forward(e.float()), y.float()) < 2 * torch.finfo(dtype).eps
    assert constraint.seen(x.to(dtype)).isfinite().all()
