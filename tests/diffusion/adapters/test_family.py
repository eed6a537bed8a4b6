"""What families share: options, labels, ranges of pixels."""

import pytest
import torch
from torch import nn

from jacobian_lab import InputError
from jacobian_lab.diffusion.adapters.family import (
    Labelled,
    UnitRange,
    call_with,
    classes,
    has,
    label_of,
    packages,
    ready,
)


def take(source, *, shape, label=None):
    return source, shape, label


def hand_on(source, *, device=None, **options):
    return source, device, options


def test_options_are_checked_by_the_loaders_own_parameters():
    assert call_with(take, 1, {"shape": (2,)}, "it") == (1, (2,), None)
    assert call_with(hand_on, 1, {"prompt": "a"}, "it") == (1, None, {"prompt": "a"})
    with pytest.raises(InputError, match="it takes no option 'size': expected shape, label"):
        call_with(take, 1, {"shape": (2,), "size": 3}, "it")
    with pytest.raises(InputError, match="it needs the option shape: see the page"):
        call_with(take, 1, {}, "it")


def test_an_object_is_known_by_its_classes_packages_and_attributes():
    network = nn.Linear(2, 2)
    assert {"Linear", "Module", "object"} <= classes(network)
    assert "torch" in packages(network)
    assert has(network, "weight", "bias")
    assert not has(network, "weight", "sigma_data")


def test_a_network_is_made_ready_and_a_function_is_left_alone():
    network = ready(nn.Linear(2, 2))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert ready(take) is take


def test_a_label_is_held_fixed_for_each_sample():
    seen = []

    def network(x, t, y):
        seen.append(y)
        return x

    x = torch.zeros(3, 2)
    Labelled(network, 4, "y")(x, torch.zeros(3))
    Labelled(network, torch.tensor([0.0, 1.0]), "y")(x, torch.zeros(3))
    Labelled(network, None, "y")(x, torch.zeros(3))
    assert seen[0].tolist() == [4, 4, 4]
    assert seen[1].tolist() == [[0, 1]] * 3
    assert seen[2] is None


def test_a_label_that_the_network_does_not_have_is_told():
    assert label_of(3, 5) == 3
    assert label_of(None, None) is None
    for label, count, message in (
        (None, 5, "pass label=0 ... 4"),
        (5, 5, "label must lie from 0 to 4: got 5"),
        (2, None, "label is 2, but the network has no classes"),
    ):
        with pytest.raises(InputError, match=message):
            label_of(label, count)


def test_pixels_in_0_1_become_pixels_in_minus_1_1():
    """A denoiser that shrinks towards gray, by hand."""
    given = UnitRange(lambda x, s: 0.5 + (x - 0.5) / (1 + s[:, None] ** 2), 2.0, -1.0)
    x, sigma = torch.tensor([[0.6, -0.2]]), torch.tensor([0.8])
    assert torch.allclose(given(x, sigma), x / (1 + 0.4**2))
