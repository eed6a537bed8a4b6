"""The study of VAE-Newton, with random weights: what it counts, and that it makes no graph."""

import csv
import dataclasses

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.constraints.separable import shrink, super_resolution
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Secant
from studies.frame.models import open_model
from studies.frame.study import Pieces
from studies.latent import (
    vae_newton,
)
from studies.latent.vae_newton import ROWS, VaeNewton, memory
from studies.latent.vae_premises import FORMS, TASKS

import pipelines
from conftest import NoGraph, call, relative, stored

pytest.importorskip("diffusers")
LATENT = (4, 8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The miniature's pipeline, narrow and with random weights."""
    return str(
        pipelines.miniature(tmp_path_factory.mktemp("pipelines") / "narrow", (8, 8, 8), (16, 16))
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_run_of_vae_newton_makes_no_tensor_that_requires_a_gradient(folder, form):
    model, images = open_model(folder, "cpu"), mnist.digits("held-out")[0][:2]
    saved = []
    keep = torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x)
    for problem in TASKS.values():
        constraint = Decoded(problem(images), model.encode, model.decode, form)
        with torch.enable_grad(), keep, NoGraph() as mode:
            *_, last = sample(
                model.denoiser,
                seeded_noise(range(2), LATENT),
                [800, 300],
                constraint,
                Newton("inexact", 1),
            )
        assert mode.seen > 1000
        assert (mode.graph > 0) == (len(saved) > 0) == (form == "backprop")
        assert not last.x0.requires_grad


@pytest.mark.slow
def test_vae_newton_peaks_at_most_at_0_6_of_back_propagation(folder):
    above = {}
    for form in ("backprop", "secant"):
        before, peak = memory(VaeNewton(model=folder, batch_size=64), "4x super-resolution", form)
        assert before > 200  # PyTorch and diffusers alone
        above[form] = peak - before
    assert above["secant"] < 0.6 * above["backprop"]


def test_the_study_samples_as_the_sampler_does_and_counts_what_it_spends(
    monkeypatch, capsys, tmp_path, folder
):
    monkeypatch.setattr(
        vae_newton,
        "memory",
        lambda config, task, method: (500.0, 500.0 + len(method) * config.batch_size),
    )
    status, _, err = call(
        monkeypatch,
        capsys,
        "vae-newton",
        "--model",
        folder,
        "--digit",
        "3",
        "--digits",
        "2",
        "--steps",
        "2",
        "--newton-steps",
        "2",
        "--measured",
        "1",
        "--times",
        "500",
        "--batch-size",
        "4",
        "--out",
        tmp_path / "run",
    )
    assert status == 0, err
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    assert [(row["task"], row["method"]) for row in rows] == ROWS
    of = {(row["task"], row["method"]): row for row in rows}

    def passes(method, task="half known"):
        return [
            int(of[task, method][f"{name}_passes"])
            for name in ("denoiser", "decoder", "decoder_with_graph", "encoder")
        ]

    # 2 times of 2 steps: 3 D and 2 J e each; a residual, and so a decoded image, for each of 6 D
    assert passes("backprop") == [10, 6 + 4, 4, 0]
    assert passes("tangent") == passes("secant") == [10, 6, 0, 8]
    assert passes("latent mask") == [10, 1, 0, 1]
    assert passes("unconstrained") == [2, 1, 0, 0]
    assert passes("autoencoder") == [0, 1, 0, 1]
    assert float(of["half known", "secant"]["peak_MB_above_rest"]) == 24
    assert float(of["half known", "secant"]["peak_by_backprop"]) == 0.75

    data = stored(tmp_path / "run")
    model, images = open_model(folder, "cpu"), mnist.digits("held-out")[0][3:5]
    problem = super_resolution(shrink(images, 4), 4)
    seeds = [seed_of(0, i) for i in (3, 4)]
    noise = seeded_noise(seeds, LATENT)
    constraint = Decoded(problem, model.encode, model.decode, "tangent")
    newton = Newton("inexact", 2, Secant(0.2))
    *_, last = sample(
        model.denoiser,
        noise,
        model.denoiser.schedule.times(2),
        constraint,
        newton,
        eta=1.0,
        seeds=seeds,
    )
    drawn, k = constraint.images(last.x0), ROWS.index(("4x super-resolution", "tangent"))
    assert relative(data["images"][k], drawn) < 1e-4
    np.testing.assert_allclose(data["missing"][k], problem.residual(drawn), rtol=1e-4)
    np.testing.assert_allclose(data["residual"][k][:, -1, -1], last.residual, rtol=1e-4)
    error = (drawn.clamp(-1, 1) - images).square().flatten(1).mean(1)
    psnr = float((10 * torch.log10(4 / error)).mean())
    assert float(of["4x super-resolution", "tangent"]["psnr"]) == pytest.approx(psnr, rel=1e-4)


def test_a_digit_is_none_of_the_others_that_its_round_trip_goes_to(monkeypatch, tmp_path, folder):
    seen = {}

    def keep(model, image, others, t, seed, number):
        clean = model.encode(image[None])
        seen[number] = float((others - clean).flatten(1).norm(dim=1).min()), len(others)
        raise InterruptedError

    monkeypatch.setattr(vae_newton, "premises", keep)
    for digit in (199, 215):
        config = VaeNewton(model=folder, digit=digit, digits=1, measured=1)
        with pytest.raises(InterruptedError):
            vae_newton.compute(config, Pieces(tmp_path / str(digit)))
    assert {number: count for number, (_, count) in seen.items()} == {199: 16, 215: 15}
    assert min(distance for distance, _ in seen.values()) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "denoiser"), "is no latent model: take mnist-latent"),
        (("--digits", "0"), "--digits, --measured and --batch-size"),
        (("--change", "0"), "--change positive"),
        (("--eta", "2"), "--eta must lie from 0 to 1"),
        (("--times", "500", "500"), "--times must each be given once"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, tmp_path, folder, words, message):
    status, _, err = call(
        monkeypatch,
        capsys,
        "vae-newton",
        *(() if "--model" in words else ("--model", folder)),
        *words,
        "--out",
        tmp_path / "run",
    )
    assert status == 2
    assert message in err


def test_a_model_of_other_images_than_digits_is_refused(monkeypatch, folder):
    photographs = dataclasses.replace(open_model(folder, "cpu"), image_shape=(3, 64, 64))
    monkeypatch.setattr(vae_newton, "open_model", lambda name, device: photographs)
    with pytest.raises(InputError, match=r"digits are \(1, 32, 32\)"):
        vae_newton.open_digits("photographs", "cpu")


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "vae-newton", "--help")
    assert status == 0
    assert "Example: jacobian-lab vae-newton --digits 4 --measured 1" in " ".join(out.split())
