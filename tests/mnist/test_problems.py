"""The problems of the contest: each digit's observation is its own, and is met by the digit."""

import pytest
import torch

import mnist
from mnist.problems import BLUR_NOISE, TASKS, problem


@pytest.mark.parametrize("task", TASKS)
def test_the_true_digits_meet_what_is_observed_of_them_to_its_noise(task):
    constraint, images, labels = problem(task, 23, 4, 0)
    assert torch.equal(images, mnist.digits("held-out")[0][23:27])
    assert labels.tolist() == [3, 4, 5, 6]
    residual = constraint.residual(images)
    if task == "blur":
        # of 1024 numbers: the standard error is 2 %
        assert (residual / BLUR_NOISE - 1).abs().max() < 0.1
    else:
        assert residual.max() < 1e-6
    assert (constraint.residual(-images) > 0.1).all()


@pytest.mark.parametrize("task", TASKS)
def test_what_is_observed_of_a_digit_depends_on_its_number_and_the_seed_alone(task):
    three, images, _ = problem(task, 5, 3, 1)
    alone, _, _ = problem(task, 6, 1, 1)
    x = torch.zeros_like(images)
    assert torch.allclose(three.missing(x)[1], alone.missing(x[1:2])[0], atol=1e-6)
    other = problem(task, 5, 3, 2)[0].missing(x)
    drawn = task in ("random", "blur")  # by a generator
    assert torch.equal(other, three.missing(x)) == (not drawn)


def test_as_many_pixels_are_known_as_is_said():
    masks = {task: problem(task, 0, 2, 0)[0].mask for task in ("half", "box", "random")}
    known = {task: int(mask.expand(2, 1, 32, 32)[0].sum()) for task, mask in masks.items()}
    assert known == {"half": 512, "box": 32**2 - 16**2, "random": round(0.08 * 1024)}
    assert not torch.equal(*masks["random"])
    assert problem("super-resolution", 0, 2, 0)[0].y.shape == (2, 1, 8, 8)
