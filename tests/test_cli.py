import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mnist.weights
from jacobian_lab import __version__
from mnist.runs import Outcome
from studies import commands
from studies.jacobian import (
    directions,
)
from studies.jacobian.directions import Directions

import networks
from conftest import call, relative, stored


def test_the_overview_needs_no_torch_and_says_of_each_command_what_its_own_help_says():
    code = (
        "import sys; from studies import cli; print(cli.overview())"
        "; assert not {'torch', 'numpy'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for group in commands.COMMANDS.values():
        for name, command in group.items():
            assert f"  {name} " in done.stdout
            assert " ".join(commands.options_of(command).__doc__.split()).startswith(command.does)


def test_the_version_is_told(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "--version")[1] == f"jacobian-lab {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["direction"], "unknown command 'direction': did you mean directions"),
        (
            ["benchmark", "produkts"],
            "unknown command 'benchmark produkts': did you mean benchmark products",
        ),
        (["train", "me"], "unknown command 'train me': did you mean train limits or train latent?"),
        (["--time", "3"], "unknown command '--time': jacobian-lab --help lists them"),
    ],
)
def test_a_mistyped_command_gets_a_suggestion(monkeypatch, capsys, words, message):
    status, _, err = call(monkeypatch, capsys, *words)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


@pytest.mark.parametrize("family", ["benchmark", "train"])
def test_a_family_of_commands_lists_them(monkeypatch, capsys, family):
    status, out, _ = call(monkeypatch, capsys, family, "--help")
    assert status == 0
    assert out.count(f"jacobian-lab {family} ") == out.count("\n") >= 4
    assert call(monkeypatch, capsys, family)[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["directions"],
        ["eigenvalues"],
        ["spectrum"],
        ["eigenvectors"],
        ["symmetry"],
        ["accuracy"],
        ["evaluate"],
        ["audit"],
        ["explore"],
        ["benchmark", "products"],
        ["benchmark", "dense"],
        ["benchmark", "eigenpairs"],
        ["benchmark", "memory"],
        ["benchmark", "sampler"],
        ["benchmark", "contest"],
        ["convergence"],
        ["inpaint"],
        ["superres"],
        ["guide"],
        ["style"],
        ["posterior"],
        ["directions-budget"],
        ["train", "denoiser"],
        ["train", "classifier"],
        ["train", "limits"],
    ],
)
def test_help_has_a_runnable_example(monkeypatch, capsys, words):
    status, out, _ = call(monkeypatch, capsys, *words, "--help")
    assert status == 0
    assert "Example: jacobian-lab" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["direction"], "directions"),
        ([], "directions"),
        (["directions", "--tme", "3"], "--tme"),
        (["directions", "--digit", "3", "--digit=4"], "--digit is given more than once"),
        (["inpaint", "--project", "--no-project"], "--project is given more than once"),
        (["eigenvalues", "--digits", "2", "--images", "a.npy"], "--digits counts held-out digits"),
        (["directions", "--time", "noon"], "noon"),
        (
            ["directions", "--time", "1000"],
            "time 1000 is outside this schedule: expected an integer from 0 to 999",
        ),
        (["directions", "--times", "300", "-1"], "-1"),
        (["directions", "--pixel", "16", "32"], "--pixel 16 32 is outside the image"),
        (
            ["directions", "--digit", "5000"],
            "--digit 5000 is not a held-out digit: expected 0 to 4999",
        ),
        (["directions", "--target", "-1"], "--target -1 is not a held-out digit"),
        (["directions", "--digits", "0"], "--digits must lie from 1 to 5000: got 0"),
        (["directions", "--change", "0"], "--change must be positive: got 0"),
        (
            ["directions", "--rconds", "1"],
            "--rconds are one or more, relative to the largest singular value, in [0, 1): got 1",
        ),
        (["directions", "--rconds"], "got none"),
        (["directions", "--times"], "--times must be one or more different times: got none"),
        (["directions", "--seed", "-1"], "--seed must lie from 0 to 2^63 - 1: got -1"),
        (["directions", "--seed", str(2**63)], "--seed must lie from 0"),
        (
            ["directions", "--out", "."],
            ". is a link or the working directory, which no run can replace",
        ),
        (["directions", "--out", "/"], "/ exists and is not the folder of a run"),
        (["directions", "--model", "unet"], "no model 'unet'"),
        (["directions", "--device", "cuda:9"], "device 'cuda:9' cannot be used"),
        (["directions", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["directions", "--out", "/proc/run"], "cannot write to /proc/run.partial"),
        (["evaluate", "--samples", "10"], "--samples must be at least 64"),
        (["evaluate", "--steps", "0"], "--steps must lie from 1 to 1000: got 0"),
        (
            ["evaluate", "--times", "500", "500"],
            "--times must each be given once: got 500 500",
        ),
        (["eigenvalues", "--digits", "0"], "--digits must lie from 1 to 5000: got 0"),
        (["eigenvalues", "--seeds", "0"], "--seeds must be at least 1: got 0"),
        (["eigenvalues", "--times", "1000"], "outside this schedule"),
        (["spectrum", "--arnoldi-steps", "3"], "--arnoldi-steps must lie from 10 to 1024: got 3"),
        (["spectrum", "--digit", "5000"], "--digit 5000 is not a held-out digit"),
        (["eigenvectors", "--k", "0"], "--k must lie from 1 to 20: got 0"),
        (["eigenvectors", "--model", "unet"], "no model 'unet'"),
        (["symmetry", "--pixel", "32", "0"], "--pixel 32 0 is outside the image"),
        (["symmetry", "--shown", "5", "5"], "--shown must each be given once: got 5 5"),
        (["audit", "--times", "-1"], "outside this schedule"),
        (["audit", "--out", "here"], "an audit is printed and writes no folder"),
        (["benchmark", "products", "--rounds", "0"], "--rounds and --batches must be at least 1"),
        (["benchmark", "dense", "--rounds", "0"], "--rounds must be at least 1: got 0"),
        (["benchmark", "eigenpairs", "--k", "0"], "expected k and blocks in 1 ... 100"),
        (
            ["benchmark", "contest", "--tasks", "deblur"],
            "--tasks must be of half; box; random; super-resolution; blur; half, noise;",
        ),
        (["convergence", "--newton-steps", "0"], "--newton-steps must be at least 1: got 0"),
        (
            ["convergence", "--points", "21"],
            "--points must lie from 1 to the number of sampling times, 20: got 21",
        ),
        (["accuracy", "--vectors", "0"], "--vectors must be at least 1"),
        (["accuracy", "--digit", "-1"], "--digit -1 is not a held-out digit"),
        (["accuracy", "--times", "1000"], "outside this schedule"),
        (["train", "denoiser", "--learning-rate", "-1"], "learning_rate must be positive"),
        (["train", "denoiser", "--ema-decay", "1.5"], "ema_decay must lie in [0, 1)"),
        (
            ["train", "denoiser", "--channels", "20", "32", "32"],
            "channels must be positive multiples of 32: got (20, 32, 32)",
        ),
        (["train", "denoiser", "--seed", "-1"], "seed must lie from 0"),
        (["train", "classifier", "--width", "3"], "width must be a positive multiple of 8: got 3"),
        (["train", "denoiser", "--data-folder", "/nowhere"], "MNIST was not found in /nowhere"),
        (["train", "denoiser", "--updates", "0"], "updates must be at least 1"),
    ],
)
def test_slips_exit_with_status_2_and_one_clear_message(
    monkeypatch, capsys, tmp_path, words, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").touch()
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_a_missing_weight_file_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(mnist.weights, "SHIPPED", tmp_path)
    status, _, err = call(monkeypatch, capsys, "directions", "--out", tmp_path / "run")
    assert status == 2
    assert "no model 'mnist'" in err
    assert not (tmp_path / "run.partial").exists()


def test_ctrl_c_exits_with_130_and_the_same_command_goes_on(monkeypatch, capsys, tmp_path, tiny):
    shown = ("--times", "500", "600", "--pixel", "3", "4", "--out", tmp_path / "run")
    words = ["directions", *tiny(), *shown]
    real = directions.truncated_svd
    calls = []

    def interrupted(*args):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(directions, "truncated_svd", interrupted)
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 130
    assert "the same command goes on" in err
    assert call(monkeypatch, capsys, *words)[0] == 0
    assert len(calls) == 3  # the first Jacobian was not computed again
    assert (tmp_path / "run" / "figure.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("target", [[], ["--target", "7"]])
def test_directions_finds_what_it_says(monkeypatch, capsys, tmp_path, model, target):
    status, out, _ = call(
        monkeypatch,
        capsys,
        "directions",
        "--model",
        model,
        "--digits",
        "1",
        "--times",
        "400",
        "--change",
        "0.5",
        "--rconds",
        "0.2",
        "0.01",
        "--out",
        tmp_path / "run",
        *target,
    )
    assert status == 0
    assert str(tmp_path / "run") in out
    data = stored(tmp_path / "run")
    assert data["cells"].tolist() == [[0, 500], [0, 400]]
    # equal largest change
    np.testing.assert_allclose(np.abs(data["steps"]).max(axis=(2, 3, 4)), 0.5, rtol=1e-5)
    # against the definitions, by another route: the residual after each step, and J delta for the
    # inexact direction
    denoiser = mnist.load_denoiser(model)
    x_t, e = torch.from_numpy(data["x_t"][0]), data["error"][0]
    after = denoiser(x_t + torch.from_numpy(data["steps"][0, 0]).float(), 500).detach().numpy()
    np.testing.assert_allclose(after, data["after"][0, 0], atol=1e-4)
    change = after - data["denoised"][0]
    assert data["residual"][0, 0] == pytest.approx(
        np.linalg.norm(e - change) / np.linalg.norm(e), rel=1e-3
    )
    assert data["achieved"][0, 0] == pytest.approx(
        (e * change).sum() / (e**2).sum(), rel=1e-3, abs=1e-5
    )
    jvp = torch.autograd.functional.jvp(
        lambda x: denoiser(x, 500), x_t, torch.from_numpy(e), strict=True
    )[1]
    assert relative(jvp / jvp.abs().max() * 0.5, data["steps"][0, 0]) < 1e-4
    J = networks.truth(denoiser.double(), x_t.double(), 500).numpy()
    gradient, exact = J.T @ e.reshape(-1), np.linalg.pinv(J, rcond=0.2) @ e.reshape(-1)
    for k, delta in ((1, gradient), (2, exact)):
        assert relative(data["steps"][0, k].reshape(-1), delta / np.abs(delta).max() * 0.5) < 1e-3
    if target:
        image = mnist.digits("held-out")[0][7]
        np.testing.assert_allclose(data["denoised"][0] + e, image, atol=1e-5)
    else:
        assert np.count_nonzero(e) == 1
        before = data["denoised"][0, 0, 16, 16]
        assert before + e[0, 16, 16] == pytest.approx(-np.sign(before), abs=1e-5)  # inverted
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["weights"].keys() == {
        model,
        "classifier",
    }


@pytest.mark.slow
def test_accuracy_marks_the_optimum(monkeypatch, capsys, tmp_path, model):
    status, _, _ = call(
        monkeypatch,
        capsys,
        "accuracy",
        "--model",
        model,
        "--times",
        "500",
        "--vectors",
        "2",
        "--pairs",
        "3",
        "--out",
        tmp_path / "run",
    )
    assert status == 0
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    error = {row["quantity"]: float(row["relative_error"]) for row in rows if not row["h"]}
    assert len(error) == 5
    assert max(error.values()) < 1e-3
    for method in ("forward", "central"):
        mine = [row for row in rows if row["quantity"].startswith(method)]
        (best,) = [row for row in mine if row["note"] == "optimum"]
        assert (
            float(best["relative_error"])
            == min(float(row["relative_error"]) for row in mine)
            < 1e-2
        )
        assert 1e-5 < float(best["h"]) < 0.5


def test_evaluate_scores_and_records(monkeypatch, capsys, tmp_path, model):
    status, _, _ = call(
        monkeypatch,
        capsys,
        "evaluate",
        "--model",
        model,
        "--times",
        "200",
        "800",
        "--digits",
        "20",
        "--jacobians",
        "1",
        "--samples",
        "64",
        "--steps",
        "2",
        "--record",
        "--out",
        tmp_path / "run",
    )
    assert status == 0
    data = stored(tmp_path / "run")
    assert data["squared"].shape == (2, 20)
    assert data["grid"].shape == (64, 1, 32, 32)
    assert data["held_out_accuracy"] > 0.99
    card = json.loads(mnist.weights.weights_file(model, ".json").read_text())
    level = card["scores"]["levels"]["200"]
    assert level["epsilon_error"] == pytest.approx(
        float((data["alpha"][0] / data["sigma"][0]) ** 2 * data["squared"][0].mean()), rel=1e-3
    )
    assert (
        card["scores"]["samples"]["frechet_samples_to_real"]
        > 3 * card["scores"]["samples"]["frechet_real_to_real"]
    )


def test_configs_are_checked_in_python_too():
    with pytest.raises(ValueError, match="is not a held-out digit"):
        Directions(digit=-1)


def test_a_check_that_failed_is_told_and_is_the_exit_status(monkeypatch, capsys):
    outcome = Outcome(Path("run"), "computed", "the answer", ("2 = 3",))
    monkeypatch.setattr("studies.frame.study.perform", lambda *_: outcome)
    status, out, err = call(monkeypatch, capsys, "risk")
    assert status == 1
    assert out.startswith("the answer")
    assert err == "failed where the answer is known: 2 = 3\n"
    monkeypatch.setattr("studies.frame.study.perform", lambda *_: outcome._replace(failures=()))
    assert call(monkeypatch, capsys, "risk")[0] == 0
