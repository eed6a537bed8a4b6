"""What is wrong with a constraint is told when it is made or first used: its range, its adjoint,
its kernel, its loss.
"""

import warnings

import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn
from torch.nn import functional as F

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.decoded import Decoded, latent_inpainting
from jacobian_lab.constraints.linear import Inpainting, LinearMap, blur
from jacobian_lab.constraints.losses import Loss, class_label
from jacobian_lab.constraints.masks import box, half, random_pixels
from jacobian_lab.constraints.separable import gaussian_blur, shrink, super_resolution
from jacobian_lab.errors import DerivativeWarning
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise

from conftest import relative

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


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))


LOSSES = {
    "detached": (lambda x: x.detach().square().mean((1, 2, 3)), "has no gradient in x_0"),
    "NumPy": (
        lambda x: torch.from_numpy(x.detach().numpy() ** 2).mean((1, 2, 3)),
        "has no gradient in x_0",
    ),
    "a constant": (lambda x: torch.ones(len(x)), "has no gradient in x_0"),
    "item": (
        lambda x: torch.tensor([float(a.square().mean()) for a in x.detach()]),
        "has no gradient in x_0",
    ),
    "of a parameter": (
        lambda x: nn.Parameter(torch.ones(1)).expand(len(x)),
        "does not depend on x_0",
    ),
    "argmax": (lambda x: (small_network()(x).argmax(1) != 3).float(), "has no gradient in x_0"),
    "whole numbers": (
        lambda x: (x > 0).sum((1, 2, 3)),
        "the loss returned torch.int64: expected a floating-point tensor",
    ),
    "a number": (lambda x: 0.5, "the loss returned float: expected a floating-point tensor"),
    "one for all": (lambda x: x.square().mean(), r"expected \(3,\), one number for each"),
    "negative": (
        lambda x: x.square().mean((1, 2, 3)) - 9,
        "below 0, and so counts as fulfilled: expected at least 0",
    ),
    "negative similarity": (
        lambda x: -F.cosine_similarity(x.flatten(1), x.flatten(1).detach() + 1),
        "below 0, and so counts as fulfilled",
    ),
    "log likelihood": (
        lambda x: F.log_softmax(small_network()(x), 1)[:, 3],
        "below 0, and so counts",
    ),
    "NaN": (
        lambda x: x.square().mean((1, 2, 3)) * torch.nan,
        "the loss is not finite for 3 of 3 samples",
    ),
    "infinite": (
        lambda x: x.square().mean((1, 2, 3)) / 0,
        "the loss is not finite for 3 of 3 samples",
    ),
    "root of zero": (
        lambda x: 1 + (x * 0).sum((1, 2, 3)).sqrt(),
        "the gradient of the loss is not finite for 3 of 3",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_cannot_lead_anywhere_is_refused(name, digits):
    function, message = LOSSES[name]
    with pytest.raises(InputError, match=message):
        Loss(function).error(digits)


FLAT = {
    "rounding": lambda x: (x * 255).round().square().mean((1, 2, 3)),
    "a comparison": lambda x: torch.where(x > 0, 1.0, 0.0 * x).mean((1, 2, 3)),
    "dead units": lambda x: 1 + F.relu(x - 9).mean((1, 2, 3)),
    "clamped": lambda x: (x + 9).clamp(max=1).mean((1, 2, 3)),
    "saturated": lambda x: torch.sigmoid(1e4 + x).mean((1, 2, 3)),
    "times zero": lambda x: 1 + 0 * x.sum((1, 2, 3)),
    "a sign": lambda x: x.sign().square().mean((1, 2, 3)),
    "of one sample": lambda x: 1 + x.mean((1, 2, 3)).abs() * torch.tensor([0.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_loss_without_slope_is_told(name, digits):
    with pytest.warns(
        DerivativeWarning,
        match=f"zero for {1 if name == 'of one sample' else 3} of 3 samples.*they stay",
    ):
        assert not Loss(FLAT[name]).error(digits)[0].any()


def test_losses_that_are_fulfilled_or_have_a_target_below_zero_say_nothing(digits):
    assert not Loss(lambda x: 0 * x.sum((1, 2, 3))).error(digits).any()
    similarity = Loss(
        lambda x: -F.cosine_similarity(x.flatten(1), digits.flatten(1).flip(0)), target=-0.99
    )
    before = similarity.residual(digits)
    assert (similarity.residual(digits + 0.5 * similarity.error(digits)) < before).any()
    for target in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(InputError, match="the target of a loss must be a finite number"):
            Loss(lambda x: x.sum((1, 2, 3)), target=target)
    for weight in (float("nan"), -1.0, float("inf")):
        with pytest.raises(
            InputError, match="the weight of a constraint must be finite and at least 0"
        ):
            weight * similarity


def test_the_sampler_does_not_hand_out_the_unconstrained_sample_in_silence():
    denoiser = mnist.load_denoiser()
    noise = seeded_noise([0], SHAPE)
    classifier = mnist.load_classifier()

    def last(loss):
        *_, state = sample(denoiser, noise, [900, 500], loss, Newton("inexact", 1))
        return state

    with pytest.warns(DerivativeWarning, match="zero for 1 of 1 samples"):
        flat = last(Loss(lambda x: classifier(x).round().square().mean(1)))
    assert torch.equal(flat.x0, list(sample(denoiser, noise, [900, 500]))[-1].x0)
    with pytest.raises(InputError, match="below 0"):
        last(Loss(lambda x: F.log_softmax(classifier(x), 1)[:, 3]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(last(class_label(classifier, torch.tensor([3]))).residual) >= 0


class Autoencoder(nn.Module):
    """Two pixels to one; it overflows half precision, as some do, on its way."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def encode(self, x):
        return F.avg_pool2d(x * self.gain, 2) / self.gain

    def decode(self, z):
        return F.interpolate(z * self.gain, scale_factor=2) / self.gain


@pytest.mark.parametrize("form", ["secant", "tangent", "backprop"])
@pytest.mark.parametrize(
    ("dtype", "gain", "fine"),
    [
        (torch.float16, 1e5, False),
        (torch.float16, 1.0, True),
        (torch.bfloat16, 1e5, True),
        (torch.float32, 1e5, True),
    ],
)
def test_an_autoencoder_that_overflows_is_told_as_that(form, dtype, gain, fine, digits):
    vae, z = Autoencoder(gain), F.avg_pool2d(digits, 2).to(dtype)
    constraint = Decoded(Inpainting(digits.to(dtype), half(SHAPE)), vae.encode, vae.decode, form)
    for ask in (constraint.residual, constraint.error, constraint.images):
        if fine:
            assert ask(z).isfinite().all()
        else:
            with pytest.raises(
                InputError,
                match=r"the decoder made values that are not finite, in torch.float16, of 3 of 3 "
                r"samples.*overflows in half precision: load the model in float32",
            ):
                ask(z)


def test_an_encoder_that_overflows_is_told_as_that(digits):
    vae, plain, z = Autoencoder(1e5), Autoencoder(1.0), F.avg_pool2d(digits, 2).half()
    wanted = Inpainting(digits.half(), half(SHAPE))
    for call in (
        lambda: latent_inpainting(digits.half(), half(SHAPE), vae.encode),
        lambda: Decoded(wanted, vae.encode, plain.decode, "secant").error(z),
    ):
        with pytest.raises(InputError, match="the encoder made values that are not finite"):
            call()
    with torch.inference_mode(), pytest.raises(InputError, match="the decoder made values"):
        Decoded(wanted, vae.encode, vae.decode, "secant").residual(z.clone())
    # the sampler's
    assert (
        not Decoded(wanted, plain.encode, plain.decode, "secant")
        .residual(z * torch.nan)
        .isfinite()
        .any()
    )


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.05, 0.1])
def test_noise_does_not_hide_that_pixels_are_in_0_to_1(sigma, digits):
    noise = sigma * torch.randn(digits.shape, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"as if pixels were in \[0, 1\]"):
        Inpainting((digits + 1) / 2 + noise, half(SHAPE), sigma)
    Inpainting(digits + noise, half(SHAPE), sigma)
    Inpainting(0.5 * digits + noise, half(SHAPE), sigma)
