"""The network of the limits: what it sees and draws, and that it ships with its card."""

import pytest
import torch

from mnist.observer import Observer, known, load_observer
from mnist.problems import TASKS, observation_image, problem

SMALL = (8, 8, 16)


@pytest.fixture
def observer():
    torch.manual_seed(0)
    return Observer(SMALL, list(TASKS)).eval()


@pytest.mark.parametrize("task", TASKS)
def test_untrained_it_draws_what_is_observed(observer, task):
    wanted, images, _ = problem(task, 0, 3, 0)
    seen = observer.look(task, wanted)
    assert seen.logits.shape == (3, 10)
    assert torch.allclose(seen.images, observation_image(wanted), atol=1e-5)
    mask = known(wanted, images)
    assert mask.shape == images.shape
    assert mask.mean() == pytest.approx(
        {"half": 0.5, "box": 0.75, "random": 82 / 1024}.get(task.split(",")[0], 1.0)
    )


def test_images_fulfil_what_has_no_noise(observer):
    torch.manual_seed(1)
    torch.nn.init.normal_(observer.exit.weight)
    for task in ("half", "random", "super-resolution"):
        wanted = problem(task, 0, 3, 0)[0]
        assert wanted.residual(observer.look(task, wanted).images).max() < 1e-5
    noisy = problem("half, noise", 0, 3, 0)[0]
    assert noisy.residual(observer.look("half, noise", noisy).images).min() > 1e-2


def test_a_sample_does_not_depend_on_its_batch_and_the_task_matters(observer):
    wanted = problem("half", 0, 3, 0)[0]
    torch.nn.init.normal_(observer.down1.conv2.weight)  # zero before training
    one = observer.look("half", wanted.select(slice(1, 2)))
    assert torch.allclose(one.logits[0], observer.look("half", wanted).logits[1], atol=1e-5)
    assert not torch.allclose(one.logits, observer.look("box", wanted.select(slice(1, 2))).logits)


def test_the_one_that_ships_names_most_half_known_digits():
    observer = load_observer()
    wanted, images, labels = problem("half", 2000, 200, 0)
    seen = observer.look("half", wanted)
    assert (seen.logits.argmax(1) == labels).float().mean() > 0.93
    error = (seen.images - images).square().mean((1, 2, 3))
    assert (10 * torch.log10(4 / error)).mean() > 18.5
    assert set(observer.tasks) == set(TASKS)
