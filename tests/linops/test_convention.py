"""The check of conventions names planted slips, and raises no alarm on what is wrapped rightly."""

import pytest
import torch

import mnist
from jacobian_lab import (
    EDM,
    Denoiser,
    DiscreteSchedule,
    GaussianMixture,
    InputError,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    check_convention,
    gaussian,
)
from mnist.oracle import load_oracle
from mnist.unet import UNet

from conftest import random_covariance

DIGITS = mnist.digits("held-out")[0][:8]
SHAPE = (1, 32, 32)


@pytest.fixture(scope="module")
def models():
    """The networks that ship, once."""
    return {name: mnist.load_denoiser(name) for name in ("mnist", "mnist-flow")}


def wrapped(denoiser, change=None, **given):
    """The same network, wrapped in another way."""
    network = denoiser.network
    options = {"schedule": denoiser.schedule, "prediction": denoiser.prediction, **given}
    return Denoiser(
        network if change is None else lambda x, t: change(network, x, t), shape=SHAPE, **options
    )


SLIPS = {
    "v taken for epsilon": ("mnist", {"prediction": "epsilon"}, 'seems to predict "v"'),
    "v taken for the sample": ("mnist", {"prediction": "sample"}, 'seems to predict "v"'),
    "the sign": ("mnist", {"change": lambda f, x, t: -f(x, t)}, "sign of the network's output"),
    "t / 1000, rounded": (
        "mnist",
        {"change": lambda f, x, t: f(x, t // 1000)},
        "given t / 1000: give it t",
    ),
    "t / 1000": (
        "mnist",
        {"change": lambda f, x, t: f(x, t / 1000)},
        "given t / 1000: give it t",
    ),
    "time the other way": (
        "mnist",
        {"change": lambda f, x, t: f(x, 999 - t)},
        "time seems to run the other way",
    ),
    "the cosine table": (
        "mnist",
        {"schedule": DiscreteSchedule.cosine()},
        "the table seems to be DiscreteSchedule.linear(1000)",
    ),
    "the scaled linear table": (
        "mnist",
        {"schedule": DiscreteSchedule.scaled_linear()},
        "the table seems to be DiscreteSchedule.linear(1000)",
    ),
    "a flow taken for v": ("mnist-flow", {"prediction": "v"}, 'seems to predict "flow"'),
    "a flow's sign": (
        "mnist-flow",
        {"change": lambda f, x, t: -f(x, t)},
        "sign of the network's output",
    ),
    "a flow's time": (
        "mnist-flow",
        {"change": lambda f, x, t: f(x, 1 - t)},
        "time seems to run the other way",
    ),
    "a flow's time in thousands": (
        "mnist-flow",
        {"change": lambda f, x, t: f(x, 1000 * t)},
        "given 1000 t: give it t",
    ),
}


FAST = ("v taken for epsilon", "a flow's time")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in SLIPS]
)
def test_a_planted_slip_is_named(models, name):
    model, given, said = SLIPS[name]
    report = check_convention(wrapped(models[model], **given), DIGITS)
    assert not report
    assert said in str(report), str(report)


@pytest.mark.parametrize(
    ("images", "said"),
    [((DIGITS + 1) / 2, "lie in [0, 1]: give 2 x - 1"), ((DIGITS + 1) * 127.5, "lie in [0, 255]")],
)
def test_the_range_of_the_samples_is_named(models, images, said):
    report = check_convention(models["mnist"], images)
    assert said in str(report), str(report)


def test_a_network_of_pixels_from_0_to_1_is_named():
    small = torch.nn.functional.avg_pool2d(mnist.digits("held-out")[0], 4)
    unit = (small.flatten(1).double() + 1) / 2
    oracle = gaussian(unit.mean(0), torch.cov(unit.T), DiscreteSchedule.linear(), (1, 8, 8))
    denoiser = oracle.denoiser("v")
    assert check_convention(denoiser, (small[:32].double() + 1) / 2)
    assert "want pixels in [0, 1]" in str(check_convention(denoiser, small[:32].double()))


def test_an_untrained_network_is_named():
    torch.manual_seed(0)
    denoiser = Denoiser(UNet(), DiscreteSchedule.linear(), "v", SHAPE).eval()
    assert "is the network trained" in str(check_convention(denoiser, DIGITS))


@pytest.mark.slow
def test_a_clean_sample_in_place_of_a_noisy_one_is_named(models):
    denoiser = models["mnist"]
    x_t = denoiser.schedule.add_noise(DIGITS, 500, torch.randn(DIGITS.shape))
    assert check_convention(denoiser, DIGITS, x_t, 500)
    report = check_convention(denoiser, DIGITS, DIGITS[0], 500)
    assert "is it a clean sample?" in str(report)
    with pytest.raises(InputError, match="x_t comes without its time"):
        check_convention(denoiser, DIGITS, x_t)


@pytest.mark.parametrize(
    "name",
    [
        "mnist",
        pytest.param("mnist-flow", marks=pytest.mark.slow),
        pytest.param("oracle", marks=pytest.mark.slow),
    ],
)
def test_no_alarm_on_what_ships(models, name):
    denoiser = models[name] if name in models else load_oracle("cpu", torch.float32)
    report = check_convention(denoiser, DIGITS)
    assert report, str(report)
    assert len(report.levels) == 5
    assert all(level.error < level.possible for level in report.levels)
    assert abs(report.trace - report.tweedie) < 0.3 * report.tweedie + 2 * report.trace_error


@pytest.mark.parametrize("prompt", [pytest.param("", marks=pytest.mark.slow), "a photo of a seven"])
def test_no_alarm_on_latents(prompt):
    pytest.importorskip("diffusers")
    latent = mnist.load_latent(prompt)
    report = check_convention(latent.denoiser, latent.encode(DIGITS))
    assert report, str(report)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow", "score"])
@pytest.mark.parametrize(
    "schedule",
    [
        DiscreteSchedule.linear(),
        DiscreteSchedule.cosine(400),
        RectifiedFlow(),
        VarianceExploding(),
        VariancePreserving(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(1, 4, 4), (16,), (2, 8), (1, 2, 2, 4)])
def test_no_alarm_on_oracles(schedule, prediction, shape):
    g = torch.Generator().manual_seed(0)
    covariance = random_covariance(16, g) / 2
    oracle = gaussian(torch.zeros(16).double(), covariance, schedule, shape)
    report = check_convention(oracle.denoiser(prediction), oracle.sample(32, g))
    assert report, str(report)


def test_no_alarm_on_edm_and_a_slip_in_it():
    g = torch.Generator().manual_seed(0)
    covariance = random_covariance(16, g)
    oracle = gaussian(torch.zeros(16).double(), covariance, VarianceExploding(), (16,))
    s_d = 0.5

    def raw(x, c_noise):
        """F for which the formula gives the oracle's mean."""
        sigma = float((4 * c_noise[0]).exp())
        power = sigma**2 + s_d**2
        x_t = x * power**0.5
        return (oracle.mean(x_t, sigma) - s_d**2 / power * x_t) / (sigma * s_d / power**0.5)

    right, wrong = (Denoiser(raw, VarianceExploding(), EDM(s), (16,)) for s in (s_d, 2.0))
    assert check_convention(right, oracle.sample(16, g))
    assert not check_convention(wrong, oracle.sample(16, g))


def test_few_samples_are_refused(models):
    with pytest.raises(InputError, match="two or more clean samples, eight tell most: got 1"):
        check_convention(models["mnist"], DIGITS[:1])
    with pytest.raises(InputError, match=r"the samples are 0\.5 everywhere"):
        check_convention(models["mnist"], torch.full_like(DIGITS, 0.5))


def test_noise_is_that_of_each_samples_own_time():
    small = torch.nn.functional.avg_pool2d(mnist.digits("held-out")[0], 4).double()
    covariance = torch.cov(small.flatten(1).T)
    oracle = gaussian(small.flatten(1).mean(0), covariance, DiscreteSchedule.linear(), (1, 8, 8))
    denoiser, noise = oracle.denoiser("v"), torch.randn(8, 1, 8, 8).double()
    clean, mixed = small[:8], torch.tensor([10] * 4 + [900] * 4)
    alpha, sigma = (float(c) for c in denoiser.schedule(500))

    def slips(x_t, t):
        found = check_convention(denoiser, clean, x_t, t).slips
        return [slip for slip in found if "holds noise" in slip]

    for t in (10, 500, mixed, torch.arange(8) * 120 + 20):
        assert not slips(denoiser.add_noise(clean, t, noise), t)
    times = torch.tensor([10] * 7 + [900])
    (slip,) = slips(torch.cat([denoiser.add_noise(clean, times, noise)[:7], clean[7:]]), times)
    assert "t = 900 says 1: is it a clean sample?" in slip
    for x_t, t in (
        (clean + sigma / alpha * noise, 500),
        (denoiser.add_noise(clean, 900, noise), 50),
    ):
        (slip,) = slips(x_t, t)
        assert "is it of another time, or scaled otherwise" in slip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 2])
def test_points_on_a_line_or_in_a_plane_raise_no_alarm_by_chance(n, seed):
    """Of 8 points, every other exact denoiser was called untrained or of another convention."""
    generator = torch.Generator().manual_seed(seed)
    oracle = GaussianMixture(
        0.7 * torch.randn(3, n, generator=generator, dtype=torch.float64),
        0.05 * torch.eye(n, dtype=torch.float64).expand(3, n, n),
        DiscreteSchedule.linear(),
        shape=(n,),
    )
    points = oracle.sample(64, generator)
    assert check_convention(oracle.denoiser("epsilon"), points)
    taken_for_v = Denoiser(oracle.denoiser("epsilon").network, oracle.schedule, "v", (n,))
    assert 'seems to predict "epsilon"' in str(check_convention(taken_for_v, points))
