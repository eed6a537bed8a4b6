"""Options of a training run: checked, and repeated by the command on the card."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from jacobian_lab import InputError
from mnist.recipe import (
    AutoencoderRecipe,
    ClassifierRecipe,
    DenoiserRecipe,
    LatentRecipe,
    command,
    essentials,
    has_bfloat16,
)


def test_bad_options_are_named():
    with pytest.raises(InputError, match="updates must be at least 1: got 0"):
        DenoiserRecipe(updates=0)
    with pytest.raises(InputError, match="device 'cuda:7' cannot be used"):
        DenoiserRecipe(device="cuda:7")
    with pytest.raises(InputError, match=r"dropped must lie in \[0, 1\): got 1"):
        LatentRecipe(dropped=1.0)
    with pytest.raises(InputError, match="channels must be positive multiples of 16"):
        LatentRecipe(channels=(8, 16))
    with pytest.raises(InputError, match="perceptual, divergence and cycle must be at least 0"):
        AutoencoderRecipe(divergence=-1.0)
    with pytest.raises(InputError, match=r"varied must lie in \[0, 1\): got 1"):
        AutoencoderRecipe(varied=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1: got 0"),
        ({"warmup": -1}, "warmup must be at least 0: got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive: got 0"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\): got 1"),
        ({"seed": 2**63}, "seed must lie from 0 to"),
        ({"channels": (32, 48, 64)}, "channels must be positive multiples of 32"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        DenoiserRecipe(**options)


def test_the_command_names_what_differs_from_the_defaults():
    assert (
        command("classifier", ClassifierRecipe(seed=3))
        == "jacobian-lab train classifier --seed 3 --data-folder FOLDER"
    )


def test_tuples_and_words_are_repeated_too():
    recipe = DenoiserRecipe(channels=(32, 32, 64), prediction="flow", out=Path("elsewhere"))
    assert command("denoiser", recipe) == (
        "jacobian-lab train denoiser --prediction flow --channels 32 32 64 --data-folder FOLDER"
    )


@pytest.mark.parametrize(
    "kind", [DenoiserRecipe, ClassifierRecipe, AutoencoderRecipe, LatentRecipe]
)
def test_essentials_are_what_changes_the_weights_and_survive_json(kind):
    recipe = kind()
    found = essentials(recipe)
    assert json.loads(json.dumps(found)) == found
    elsewhere = dataclasses.replace(recipe, out=Path("there"), download=True, checkpoint_every=7)
    assert essentials(elsewhere) == found
    assert essentials(dataclasses.replace(recipe, seed=1)) != found


def test_bfloat16_is_asked_of_the_device(monkeypatch):
    for abilities, expected in (({"avx512_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda a=abilities: a, raising=False)
        assert has_bfloat16("cpu") == expected
    assert not has_bfloat16("meta")
