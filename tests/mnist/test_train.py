import hashlib
import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import mnist
from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    RectifiedFlow,
    asymmetry,
    seeded_noise,
)
from mnist import train as training
from mnist import weights
from mnist.recipe import ClassifierRecipe, DenoiserRecipe
from mnist.tasks import denoising_loss
from mnist.train import Run, batches, train

import mnist_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mnist_files.write(tmp_path_factory.mktemp("mnist"))


def tiny(folder, out, **options):
    options = {
        "updates": 6,
        "batch_size": 8,
        "checkpoint_every": 2,
        "channels": (32, 32, 32),
        "warmup": 2,
    } | options
    return DenoiserRecipe(data_folder=folder, out=out, **options)


def digest(path):
    return hashlib.sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()


class StopError(Exception):
    pass


def test_training_lowers_the_loss_and_leaves_weights_card_and_losses(folder, tmp_path):
    path = train(tiny(folder, tmp_path / "run", updates=30, learning_rate=3e-3, ema_decay=0.9))
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["steps"] == 30
    assert card["sha256"] == digest(path)
    assert (
        card["command"]
        == "jacobian-lab train denoiser --updates 30 --batch-size 8 --learning-rate 0.003"
        f" --warmup 2 --ema-decay 0.9 --precision {card['precision']} --channels 32 32 32"
        " --data-folder FOLDER"
    )
    losses = [float(line) for line in (tmp_path / "run" / "losses.csv").read_text().split()[1:]]
    assert len(losses) == 30
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert mnist.load_denoiser(path)(torch.zeros(1, 32, 32), 500).shape == (1, 32, 32)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "denoiser.json",
        "denoiser.safetensors",
        "losses.csv",
        "recipe.json",
    ]
    before = digest(path)
    # a second run
    assert (
        train(tiny(folder, tmp_path / "run", updates=30, learning_rate=3e-3, ema_decay=0.9)) == path
    )
    assert digest(path) == before


@pytest.mark.parametrize("moment", ["step", "checkpoint", "losses", "weights", "card"])
def test_an_interrupted_run_goes_on_to_the_same_weights(folder, tmp_path, monkeypatch, moment):
    expected = digest(train(tiny(folder, tmp_path / "whole")))
    calls = []

    def fails(original, at):
        def inner(*args, **kwargs):
            calls.append(0)
            if len(calls) == at:
                if moment != "step":
                    (args[0].parent / f".{'0b' * 8}.partial").write_bytes(b"half a file")
                raise StopError
            return original(*args, **kwargs)

        return inner

    with monkeypatch.context() as patch:
        # the training writes three checkpoints and the losses; then come weights and card
        owner, name, at = {
            "step": (Run, "step", 4),
            "checkpoint": (training, "write_archive", 2),
            "losses": (training, "write_whole", 1),
            "weights": (weights, "write_whole", 1),
            "card": (weights, "write_whole", 2),
        }[moment]
        patch.setattr(owner, name, fails(getattr(owner, name), at))
        with pytest.raises(StopError):
            train(tiny(folder, tmp_path / "broken"))
    assert (tmp_path / "broken.partial" / "checkpoint.pt").is_file()
    assert digest(train(tiny(folder, tmp_path / "broken"))) == expected
    assert sorted(p.name for p in (tmp_path / "broken").iterdir()) == [
        "denoiser.json",
        "denoiser.safetensors",
        "losses.csv",
        "recipe.json",
    ]
    assert len((tmp_path / "broken" / "losses.csv").read_text().split()) == 7


@pytest.mark.slow
def test_killed_three_times_at_random_moments_it_ends_at_the_same_bits(folder, tmp_path):
    options = [
        "--updates",
        "120",
        "--batch-size",
        "8",
        "--checkpoint-every",
        "5",
        "--channels",
        "32",
        "32",
        "32",
    ]

    def start(out):
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "studies.cli",
                "train",
                "denoiser",
                *options,
                "--data-folder",
                folder,
                "--out",
                out,
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    assert start(tmp_path / "whole").wait() == 0
    checkpoint, seen = tmp_path / "killed.partial" / "checkpoint.pt", None
    for _ in range(3):
        process = start(tmp_path / "killed")
        deadline = time.monotonic() + 60
        while not checkpoint.is_file() or checkpoint.stat().st_mtime_ns == seen:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        assert process.poll() is None  # killed in the middle, not after the end
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = checkpoint.stat().st_mtime_ns
    assert 0 < len(torch.load(checkpoint, weights_only=True)["losses"]) < 120
    assert start(tmp_path / "killed").wait() == 0
    assert digest(tmp_path / "killed" / "denoiser") == digest(tmp_path / "whole" / "denoiser")


def test_seeds_matter_and_the_global_generator_is_left_alone(folder, tmp_path):
    state = torch.get_rng_state()
    one = digest(train(tiny(folder, tmp_path / "a")))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(17)
    assert digest(train(tiny(folder, tmp_path / "b"))) == one
    assert digest(train(tiny(folder, tmp_path / "c", seed=1))) != one


def test_the_classifier_learns(folder, tmp_path):
    recipe = ClassifierRecipe(
        data_folder=folder,
        out=tmp_path / "run",
        updates=80,
        batch_size=32,
        width=8,
        ema_decay=0.5,
        learning_rate=1e-2,
        warmup=5,
    )
    path = train(recipe)
    classifier = mnist.load_classifier(path)
    # 0.1 by chance
    assert json.loads(path.with_suffix(".json").read_text())["scores"]["test_accuracy"] > 0.3
    assert classifier(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_each_epoch_is_a_permutation_and_a_resumed_one_the_same():
    recipe = DenoiserRecipe(updates=20, batch_size=4)
    whole = list(batches(recipe, 18, 0))
    for epoch in range(5):
        indices = torch.cat([index for step, index in whole if step // 4 == epoch]).tolist()
        assert len(set(indices)) == 16
    assert all(
        torch.equal(a[1], b[1]) for a, b in zip(whole[7:], batches(recipe, 18, 7), strict=True)
    )


def test_another_recipe_in_the_same_folder_is_refused(folder, tmp_path):
    train(tiny(folder, tmp_path / "run"))
    with pytest.raises(InputError, match=r"other options: updates 6 \(now 8\).*another --out"):
        train(tiny(folder, tmp_path / "run", updates=8))


def test_a_diverging_loss_stops_with_a_remedy(folder, tmp_path):
    with pytest.raises(
        InputError, match=r"the loss is (nan|inf) at step \d+: lower --learning-rate"
    ):
        train(tiny(folder, tmp_path / "run", updates=50, learning_rate=1e12, warmup=1))


def test_a_folder_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"cannot write to .*: Not a directory. Choose another --out"
    ):
        train(tiny(folder, tmp_path / "file" / "run"))


def test_a_flow_trains_on_the_straight_path_and_resumes_as_the_others(folder, tmp_path):
    path = train(
        tiny(
            folder,
            tmp_path / "run",
            updates=30,
            learning_rate=3e-3,
            ema_decay=0.9,
            prediction="flow",
        )
    )
    denoiser = mnist.load_denoiser(path)
    assert isinstance(denoiser.schedule, RectifiedFlow)
    assert denoiser.network.time.time_scale == 1000
    assert json.loads(path.with_suffix(".json").read_text())["schedule"] == "rectified flow"
    losses = [float(line) for line in (tmp_path / "run" / "losses.csv").read_text().split()[1:]]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert torch.isfinite(denoiser(torch.randn(1, 32, 32), 0.5)).all()


def test_a_damaged_model_is_told_and_a_foreign_one_left_alone(folder, tmp_path):
    path = train(tiny(folder, tmp_path / "run"))
    path.with_suffix(".safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"denoiser.safetensors are damaged"):
        train(tiny(folder, tmp_path / "run"))
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(InputError, match=r"denoiser.safetensors are missing"):
        train(tiny(folder, tmp_path / "run"))
    for claim in ("{", None):
        (
            (tmp_path / "run" / "recipe.json").write_text(claim)
            if claim
            else (tmp_path / "run" / "recipe.json").unlink()
        )
        with pytest.raises(
            InputError, match="run exists and is not the folder of a run: choose another --out"
        ):
            train(tiny(folder, tmp_path / "run"))


def test_the_penalty_is_the_skew_part_of_the_raw_output():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.W = torch.nn.Parameter(torch.randn(16, 16, dtype=torch.float64))

        def forward(self, x, _t):
            return (x.flatten(1) @ self.W.T).reshape(x.shape)

    torch.manual_seed(0)
    network, x = Linear(), torch.zeros(40_000, 1, 4, 4, dtype=torch.float64)
    denoiser = Denoiser(network, DiscreteSchedule.linear(), "v", (1, 4, 4))
    found = []
    for symmetry in (0.0, 0.7):
        torch.manual_seed(1)
        found.append(denoising_loss(denoiser, symmetry)(network, x, None))
    skew = network.W - network.W.T
    exact = 0.7 * skew.square().sum() / 16
    torch.testing.assert_close(found[1] - found[0], exact, rtol=0.02, atol=0)
    (got,) = torch.autograd.grad(found[1] - found[0], network.W)
    (truth,) = torch.autograd.grad(exact, network.W)
    torch.testing.assert_close(got, truth, rtol=0, atol=0.05 * truth.abs().max().item())


def test_training_goes_on_from_weights_and_makes_j_symmetric(folder, tmp_path):
    options = {"updates": 12, "warmup": 3, "learning_rate": 3e-3, "ema_decay": 0.5}
    options |= {"precision": "float32"}
    first = train(tiny(folder, tmp_path / "first", **options))
    found = {}
    for symmetry in (0.0, 100.0):
        out = tmp_path / f"more-{symmetry:g}"
        path = train(tiny(folder, out, start=str(first), symmetry=symmetry, **options))
        denoiser, x = mnist.load_denoiser(path), seeded_noise([0], (1, 32, 32))
        found[symmetry] = asymmetry(JacobianOperator(denoiser, x, 500)).value
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["start"]["sha256"] == digest(first)
    assert card["loss"].endswith("and 100 |(F' - F'^T) v|^2 / n of it")
    assert f"--symmetry 100.0 --start {first}" in card["command"]
    assert found[100.0] < 0.5 * found[0.0]
    with pytest.raises(InputError, match=r"holds .*'v'.* is to be trained"):
        train(tiny(folder, tmp_path / "flow", start=str(first), prediction="flow"))
