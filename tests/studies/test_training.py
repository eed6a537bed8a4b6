"""The command `train`: what it prints is where the model is, and works as it stands."""

from pathlib import Path

import pytest

import mnist
from jacobian_lab import Denoiser
from mnist.runs import Outcome
from studies import (
    training,
)

import mnist_files


def test_what_is_printed_loads_the_model(tmp_path, capsys):
    recipe = training.DenoiserRecipe(
        data_folder=mnist_files.write(tmp_path / "data"),
        out=tmp_path / "run",
        updates=1,
        batch_size=4,
        channels=(32, 32, 32),
    )
    for how in ("computed", "reused"):
        training.report_training(recipe)
        line, last = capsys.readouterr().out.splitlines()
        assert last == how
        path = tmp_path / "run" / "denoiser"
        told = f"{path}.safetensors and its card {path}.json; use it by "
        assert line.startswith(told)
        assert path.with_suffix(".safetensors").is_file()
        assert path.with_suffix(".json").is_file()
        # as a user would paste it
        assert isinstance(eval(line.removeprefix(told), {"mnist": mnist}), Denoiser)


@pytest.mark.parametrize(
    ("recipe", "use"),
    [
        (training.ClassifierRecipe(), "mnist.load_classifier('RUN/classifier')"),
        (
            training.AutoencoderRecipe(),
            "jacobian-lab train latent --autoencoder RUN/autoencoder",
        ),
        (training.LatentRecipe(), "--model RUN/pipeline"),
    ],
)
def test_each_kind_of_model_is_used_in_its_own_way(monkeypatch, capsys, recipe, use):
    asked = []
    monkeypatch.setattr(
        training,
        "train_or_resume",
        lambda recipe: asked.append(recipe) or Outcome(Path("RUN"), "resumed at step 5"),
    )
    training.report_training(recipe)
    line, last = capsys.readouterr().out.splitlines()
    assert asked == [recipe]
    assert line.endswith(f"; use it by {use}")
    assert last == "resumed at step 5"
