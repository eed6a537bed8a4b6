"""Losses: the error brings the linearised loss to its target, and one that cannot is refused."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.losses import Loss, class_label, layers, segmentation, style
from jacobian_lab.errors import DerivativeWarning
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise

SHAPE = (2, 8, 8)


def images(count=3, seed=0, shape=SHAPE):
    return torch.randn(
        count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


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


def test_a_style_is_the_mean_over_its_layers():
    x, image = images(), images(1, seed=7)
    found = style(image, lambda x: [x, x.flatten(2)[..., :9]]).residual(x)
    grams = [[f @ f.mT for f in (z.flatten(2), z.flatten(2)[..., :9])] for z in (x, image)]
    each = [(g - w).square().sum((1, 2)) / w.square().sum() for g, w in zip(*grams, strict=True)]
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)


def test_labels_that_are_written_into_afterwards_change_nothing():
    x, labels = images(), torch.tensor([1, 2, 3])
    loss = class_label(lambda x: x.flatten(1), labels)
    before = loss.residual(x)
    labels[:] = 0
    assert torch.equal(loss.residual(x), before)


def test_layers_are_found_by_name():
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1))
    assert layers(network, ["0"])(images().float())[0].shape == (3, 3, 8, 8)
    with pytest.raises(InputError, match="no layer body: it has 0"):
        layers(network, ["body"])


def test_what_is_no_loss_or_no_style_is_named_before_anything_is_sampled():
    for make in (lambda: Loss(3), lambda: style(images(1), 3)):
        with pytest.raises(InputError, match=r"must be a function .*: got 3"):
            make()
    with pytest.raises(InputError, match="features of a layer are zero all over the image"):
        style(torch.zeros(1, 2, 8, 8), lambda x: [x])


def test_losses_work_in_inference_mode_and_layers_come_before_an_activation_in_place():
    network, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True)).double(), images()
    with torch.no_grad():
        (found,) = layers(network, ["0"])(x)
        assert torch.equal(found, network[0](x))
    loss = Loss(lambda z: z.square().mean((1, 2, 3)))
    with torch.inference_mode():
        error = loss.error(images())
    assert torch.equal(error, loss.error(x))


@pytest.fixture(scope="module")
def digits():
    return mnist.digits("held-out")[0][:3]


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


@pytest.mark.parametrize("slope", [1e-30, 1e-25, 1e-10, 1.0, 1e10, 1e25])
def test_the_squares_of_a_slope_neither_underflow_nor_overflow(slope):
    """Of a saturated network, say: the error was zero, and nothing told so."""
    x = torch.zeros(2, 1, 4, 4)
    found = Loss(lambda x: 1 + slope * x.sum((1, 2, 3))).error(x)
    expected = torch.full_like(x, -min(1, 1 / (16 * slope)))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


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
        with pytest.raises(InputError, match="the weight of a constraint must be at least 0"):
            weight * similarity


def test_the_sampler_does_not_hand_out_the_unconstrained_sample_in_silence():
    denoiser = mnist.load_denoiser()
    noise = seeded_noise([0], (1, 32, 32))
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


def test_a_loss_of_many_pixels_in_half_precision_has_an_error():
    x0 = torch.full((1, 3, 64, 64), 0.5)
    squares = Loss(lambda x: x.square().flatten(1).mean(1))
    torch.testing.assert_close(
        squares.error(x0.half()).float(), squares.error(x0), rtol=2e-3, atol=0
    )


def test_a_loss_in_another_precision_than_the_samples_has_an_error_in_theirs():
    target = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    wide = Loss(lambda x: (x.double() - target).square().flatten(1).sum(1))
    assert wide.error(torch.zeros(2, 1, 4, 4)).dtype == torch.float32
