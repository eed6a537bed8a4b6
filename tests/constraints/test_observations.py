"""The range of an observation and the adjoint of its map are checked when a constraint is made."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch.nn import functional as F

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.linear import Inpainting, LinearMap, blur
from jacobian_lab.constraints.masks import box, half, random_pixels
from jacobian_lab.constraints.separable import gaussian_blur, shrink, super_resolution

SHAPE = (1, 32, 32)


KERNEL = torch.tensor([[0.0, 0.1, 0.3], [0.0, 0.55, 0.05], [0.0, 0.0, 0.0]])
"""Of a motion: not symmetric about its middle, and it can be inverted, since the middle outweighs
the others.
"""


@pytest.fixture(scope="module")
def digits():
    return mnist.digits("held-out")[0][:3]


OBSERVE = {
    "half": lambda x: Inpainting(x, half(SHAPE)),
    "box": lambda x: Inpainting(x, box(SHAPE, 16)),
    "few pixels": lambda x: Inpainting(x, random_pixels(SHAPE, 0.08)),
    "noise": lambda x: Inpainting(x + 0.1 * torch.randn_like(x), half(SHAPE), sigma=0.1),
    "super-resolution": lambda x: super_resolution(shrink(x, 4), 4),
    "gaussian blur": lambda x: gaussian_blur(x, 1.0),
    "blur": lambda x: blur(x, KERNEL),
    "blur of colours": lambda x: blur(x.expand(-1, 3, -1, -1), KERNEL),
    "mean of rows": lambda x: LinearMap(
        x.mean(3), lambda z: z.mean(3), lambda u: u[..., None].expand(-1, -1, -1, 32) / 32
    ),
    "double precision": lambda x: Inpainting(x.double(), half(SHAPE)),
    "half precision": lambda x: Inpainting(x.half(), half(SHAPE)),
}


@pytest.mark.parametrize("name", OBSERVE)
def test_the_range_of_y_is_told(name, digits):
    make = OBSERVE[name]
    torch.manual_seed(0)
    make(digits)  # in [-1, 1]: without a word
    make(torch.randn_like(digits))  # of unit variance, as latents
    with pytest.raises(
        InputError,
        match=r"y = A x would need pixels of at least \d+.* expected \[-1, 1\].*x / 127.5 - 1",
    ):
        make(127.5 * (digits + 1))
    # noise goes below 0 too, and no mean comes near white
    if name not in ("noise", "mean of rows"):
        with pytest.warns(UserWarning, match=r"as if pixels were in \[0, 1\]"):
            make((digits + 1) / 2)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, *SHAPE),
        torch.ones(1, *SHAPE),
        0.5 + torch.rand(1, *SHAPE) / 2,
        -torch.rand(1, *SHAPE),
        torch.full((1, *SHAPE), 0.05),
    ],
)
def test_images_that_are_not_negative_are_taken_as_they_are(x):
    Inpainting(x, half(SHAPE))
    gaussian_blur(x, 1.0)


def test_sums_and_large_maps_may_have_large_observations(digits):
    LinearMap(
        digits.sum((1, 2, 3))[:, None],
        lambda x: x.sum((1, 2, 3))[:, None],
        lambda u: u[..., None, None].expand(-1, 1, 32, 32).clone(),
    )
    scale = 1000.0
    LinearMap(scale * digits, lambda x: scale * x, lambda u: scale * u)
    direction = digits[:1].sign()
    LinearMap(
        (direction * direction).sum().reshape(1, 1),
        lambda x: (x * direction).sum((1, 2, 3))[:, None],
        lambda u: u[..., None, None] * direction,
    )  # as large as pixels in [-1, 1] can make it


def rolled(x, by):
    return torch.roll(x, by, (2, 3))


def correlation(x):
    return F.conv2d(x, KERNEL.to(x)[None, None], padding=1)


def convolution(x):
    return F.conv2d(x, KERNEL.to(x).flip(0, 1)[None, None], padding=1)


ADJOINTS = {
    "identity": (lambda x: x, lambda u: u, True),
    "shift": (lambda x: rolled(x, (2, 1)), lambda u: rolled(u, (-2, -1)), True),
    "zero-padded kernel": (correlation, convolution, True),
    "shrink": (lambda x: F.avg_pool2d(x, 2), lambda u: F.interpolate(u, scale_factor=2) / 4, True),
    "real part of FFT": (
        lambda x: torch.fft.fft2(x.float(), norm="ortho").real.to(x),
        lambda u: torch.fft.fft2(u.float(), norm="ortho").real.to(u),
        True,
    ),
    "shift the wrong way": (lambda x: rolled(x, (2, 1)), lambda u: rolled(u, (2, 1)), False),
    "kernel not flipped": (correlation, correlation, False),
    "a factor of 2": (lambda x: x, lambda u: 2 * u, False),
    "a sign": (lambda x: x, lambda u: -u, False),
    "1 percent": (lambda x: x, lambda u: 1.01 * u, False),
    "upsampling, not averaged": (
        lambda x: F.avg_pool2d(x, 2),
        lambda u: F.interpolate(u, scale_factor=2),
        False,
    ),
    "upsampling, bilinear": (
        lambda x: F.avg_pool2d(x, 2),
        lambda u: F.interpolate(u, scale_factor=2, mode="bilinear") / 4,
        False,
    ),
    "the inverse": (lambda x: 2 * x, lambda u: u / 2, False),
    "transposed images": (lambda x: x, lambda u: u.mT, False),
    "zero": (lambda x: x, lambda u: 0 * u, False),
    "an offset": (lambda x: x + 1, lambda u: u, False),
    "clamped": (lambda x: x.clamp(-1, 1), lambda u: u, False),
    "absolute": (lambda x: x.abs(), lambda u: u, False),
    "NaN": (lambda x: x * torch.nan, lambda u: u, False),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ADJOINTS)
def test_a_wrong_adjoint_is_told_at_once(name, dtype, digits):
    forward, adjoint, right = ADJOINTS[name]
    y = (digits if "sampling" not in name and name != "shrink" else F.avg_pool2d(digits, 2)).to(
        dtype
    )
    if right:
        LinearMap(y, forward, adjoint)
    # below what their rounding tells
    elif not (name == "1 percent" and dtype in (torch.float16, torch.bfloat16)):
        with pytest.raises(
            InputError, match="the adjoint is not that of A, or A is not linear: <A x, u> ="
        ):
            LinearMap(y, forward, adjoint, rtol=0.5)  # of the solver: not a licence


@pytest.mark.parametrize(
    ("A", "shape", "said"),
    [
        (np.ones((5, 4)) * 1j, (2, 2), "A must be real: got complex128"),
        (np.ones((5, 4)), (2, 3), r"A must be of shape \(5, 6\).*got \(5, 4\)"),
        (np.ones((6, 4)), (2, 2), r"A must be of shape \(5, 4\).*got \(6, 4\)"),
        ("A", (2, 2), "expected a LinearOperator of SciPy: got"),
    ],
)
def test_an_operator_of_scipys_that_does_not_fit_is_told(A, shape, said):
    with pytest.raises(InputError, match=said):
        LinearMap.from_operator(torch.ones(3, 5), A, shape)
    with pytest.raises(InputError, match=r"y must have shape \(B, m\): got \(\)"):
        LinearMap.from_operator(torch.tensor(1.0), np.ones((5, 4)), (2, 2))


def test_a_wrong_adjoint_of_scipys_is_told_and_shapes_are(digits):
    A = np.random.default_rng(0).standard_normal((20, 1024))
    y = torch.from_numpy(digits.double().flatten(1).numpy() @ A.T)
    LinearMap.from_operator(
        y, LinearOperator(A.shape, matvec=lambda x: A @ x, rmatvec=lambda u: A.T @ u), SHAPE
    )
    wrong = LinearOperator(A.shape, matvec=lambda x: A @ x, rmatvec=lambda u: A[::-1].T @ u)
    with pytest.raises(InputError, match="the adjoint is not that of A"):
        LinearMap.from_operator(y, wrong, SHAPE)
    with pytest.raises(
        InputError,
        match=r"A makes \(3, 1, 16, 16\) of them: expected the shape of y, \(3, 1, 32, 32\)",
    ):
        LinearMap(digits, lambda x: F.avg_pool2d(x, 2), lambda u: u)


def test_the_dot_test_leaves_the_users_random_numbers_alone(digits):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    LinearMap(digits, lambda x: x, lambda u: u)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.05, 0.1])
def test_noise_does_not_hide_that_pixels_are_in_0_to_1(sigma, digits):
    noise = sigma * torch.randn(digits.shape, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"as if pixels were in \[0, 1\]"):
        Inpainting((digits + 1) / 2 + noise, half(SHAPE), sigma)
    Inpainting(digits + noise, half(SHAPE), sigma)
    Inpainting(0.5 * digits + noise, half(SHAPE), sigma)
