"""The problems of the contest: each digit's observation is its own, and is met by the digit."""

import pytest
import torch

import mnist
from mnist.problems import (
    LEVELS,
    NOISE,
    NONLINEAR,
    PLAIN,
    SHAPE,
    TASKS,
    Measured,
    Quantised,
    observation_image,
    problem,
    sensor,
)

NOISY = [task for task in TASKS if "noise" in task or task in ("blur", "saturated")]


@pytest.mark.parametrize("task", TASKS)
def test_the_true_digits_meet_what_is_observed_of_them_to_its_noise(task):
    constraint, images, labels = problem(task, 23, 4, 0)
    assert torch.equal(images, mnist.digits("held-out")[0][23:27])
    assert labels.tolist() == [3, 4, 5, 6]
    residual = constraint.residual(images)
    if task in NOISY:
        assert constraint.sigma == NOISE
        # the standard error of the root mean square of m numbers is 1 / sqrt(2 m)
        least = constraint.count()
        few = float(least.min()) if isinstance(least, torch.Tensor) else least
        assert (residual / NOISE - 1).abs().max() < 3.5 / (2 * few) ** 0.5
    else:
        assert constraint.sigma == 0
        assert residual.max() < 1e-6
    assert (constraint.residual(-images) > 0.1).all()


@pytest.mark.parametrize("task", TASKS)
def test_what_is_observed_of_a_digit_depends_on_its_number_and_the_seed_alone(task):
    three, images, _ = problem(task, 5, 3, 1)
    alone, _, _ = problem(task, 6, 1, 1)
    x = torch.zeros_like(images)
    assert torch.allclose(three.missing(x)[1], alone.missing(x[1:2])[0], atol=1e-6)
    assert torch.equal(three.select(slice(1, 2)).missing(x[:1]), three.missing(x)[1:2])
    other = problem(task, 5, 3, 2)[0].missing(x)
    drawn = task == "random" or task in NOISY  # by a generator
    assert torch.equal(other, three.missing(x)) == (not drawn)


def test_as_many_pixels_are_known_as_is_said():
    masks = {task: problem(task, 0, 2, 0)[0].mask for task in ("half", "box", "random")}
    known = {task: int(mask.expand(2, 1, 32, 32)[0].sum()) for task, mask in masks.items()}
    assert known == {"half": 512, "box": 32**2 - 16**2, "random": round(0.08 * 1024)}
    assert not torch.equal(*masks["random"])
    assert problem("super-resolution", 0, 2, 0)[0].y.shape == (2, 1, 8, 8)
    assert list(TASKS)[:5] == list(PLAIN) == ["half", "box", "random", "super-resolution", "blur"]


def test_a_problem_with_noise_is_the_one_without_and_noise():
    for kind in ("half", "box", "super-resolution"):
        exact, noisy = (problem(task, 7, 300, 0)[0].y for task in (kind, f"{kind}, noise"))
        added = (noisy - exact)[exact != 0]
        assert abs(added.std() / NOISE - 1) < 0.02
        assert abs(added.mean()) < 0.002


def test_levels_are_intervals_and_their_error_leads_into_them():
    wanted, images, _ = problem("quantised", 0, 3, 0)
    assert isinstance(wanted, Quantised)
    assert set(wanted.y.unique().tolist()) <= {-0.75, -0.25, 0.25, 0.75}
    linear = wanted.linear.forward
    inside = (linear(images) - wanted.y).abs() <= 1 / LEVELS + 1e-6
    assert (inside | (wanted.y.abs() > 0.7)).all()  # the outer ones have no outer bound
    other = images.roll(1, 0)
    moved = wanted.project(other)
    assert wanted.residual(other).min() > 0.1
    assert wanted.residual(moved).max() < 1e-5
    # the nearest points: on the edge of the interval where A x was outside, untouched elsewhere
    outside = wanted.missing(other).abs() > 0
    assert torch.allclose(linear(moved)[~outside], linear(other)[~outside], atol=1e-5)
    assert torch.allclose(wanted.error(other), wanted.seen(wanted.error(other)), atol=1e-5)
    assert wanted.count() == 64


def test_the_sensor_saturates_and_its_loss_has_the_slope_of_its_differences():
    wanted, images, _ = problem("saturated", 0, 3, 0)
    assert isinstance(wanted, Measured)
    assert sensor(torch.ones(1, *SHAPE)).min() == pytest.approx(0.964, abs=1e-3)
    x = images.roll(1, 0).double()
    double = Measured(wanted.y.double(), sensor, NOISE)
    error = double.error(x)
    assert error.abs().max() <= 1
    h = 1e-6
    slope = (double.residual(x + h * error) - double.residual(x - h * error)) / (2 * h)
    excess = double.residual(x) - NOISE
    size = error.flatten(1).square().sum(1)
    # along -grad L the loss falls by |error| |grad L|: by its excess, where the error was not cut
    cut = error.flatten(1).abs().amax(1) > 1 - 1e-9
    assert torch.allclose(-slope[~cut], excess[~cut], rtol=1e-5)
    assert (slope < 0).all()
    assert (size > 0).all()
    assert wanted.residual(images).max() < 1.1 * NOISE
    assert not wanted.error(images)[wanted.residual(images) < NOISE].any()


@pytest.mark.parametrize("task", TASKS)
def test_what_is_observed_can_be_shown(task):
    wanted, images, _ = problem(task, 0, 3, 0)
    shown = observation_image(wanted)
    assert shown.shape == images.shape
    if task == "blur, exact":
        assert (shown - images).square().mean() < 1e-3
    elif task not in NONLINEAR:
        assert wanted.residual(shown).max() < (0.8 if wanted.sigma else 1e-5)
    assert (shown - images).square().mean() < (images.roll(1, 0) - images).square().mean() + 0.7
