"""How the network of the limits is trained: what it minimises, and that the result loads."""

import pytest
import torch

import mnist
from jacobian_lab import InputError
from mnist.observer import load_observer
from mnist.observer_train import limits_task, observing_loss
from mnist.problems import TASKS, observation_image
from mnist.recipe import LimitsRecipe
from mnist.train import train

import mnist_files

SMALL = (8, 8, 16)


def test_the_loss_sees_all_tasks_and_is_zero_for_who_knows():
    images, labels = (x[:24] for x in mnist.digits("held-out"))
    seen = []

    def knows(shown, masks, numbers):
        seen.append((shown, masks, numbers))
        return type("Seen", (), {"logits": 100.0 * torch.eye(10)[labels], "images": images})

    assert float(observing_loss(knows, images, labels)) < 1e-6
    shown, masks, numbers = seen[0]
    assert numbers.tolist() == [i // 2 for i in range(24)]
    assert torch.equal(shown[:2], observation_image(TASKS["half"](images[:2], [0, 0])))
    assert torch.equal(masks[:2].bool()[0], TASKS["half"](images[:2], [0, 0]).mask[0])
    few = observing_loss(knows, images, labels)
    assert float(few) < 1e-6
    assert not torch.equal(seen[1][0], shown)  # fresh noise and fresh masks


def test_training_leaves_a_model_that_loads(tmp_path):
    folder = mnist_files.write(tmp_path / "data")
    recipe = LimitsRecipe(
        data_folder=folder, out=tmp_path / "run", updates=2, batch_size=12, channels=SMALL
    )
    path = train(recipe)
    again = load_observer(path)
    assert again.tasks == tuple(TASKS)
    assert not any(weights.requires_grad for weights in again.parameters())
    assert limits_task(recipe).card["architecture"]["channels"] == list(SMALL)
    further = LimitsRecipe(
        data_folder=folder, out=tmp_path / "more", updates=1, channels=SMALL, start=str(path)
    )
    task = limits_task(further)
    assert task.card["start"]["steps"] == 2
    assert torch.equal(task.network.entry.weight, again.entry.weight)
    assert task.network.entry.weight.requires_grad
    with pytest.raises(InputError, match="describes a limits: expected a classifier"):
        mnist.load_classifier(path)


def test_options_are_checked():
    with pytest.raises(InputError, match="multiples of 8: got"):
        LimitsRecipe(channels=(8, 12, 16))
