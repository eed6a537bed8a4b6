"""Digits from captions: the study on a random miniature, and what the miniature that ships can
do.
"""

import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mnist
from jacobian_lab import JacobianOperator, audit, load_latent
from jacobian_lab.sampling.sampler import sample, seeded_noise
from mnist import latent
from studies.latent import (
    captions,
)
from studies.latent.captions import Captions, draw_ours, draw_stock

import pipelines
from conftest import call, stored

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pipelines.miniature(tmp_path_factory.mktemp("pipelines") / "narrow")


def test_our_sampler_draws_what_diffusers_draws(folder):
    config = Captions(model=str(folder), samples=3, stock=3, steps=6)
    model = load_latent(folder)
    for scale in (1.0, 3.0):
        ours, stock = draw_ours(config, model, scale, 7), draw_stock(config, model, scale, 7)
        # diffusers' last step leaves the noise of time 0 in, sigma 0.03; ours ends at D
        assert float((ours.clamp(-1, 1) - stock).abs().mean()) < 0.02
    assert (
        float((draw_ours(config, model, 3.0, 7) - draw_ours(config, model, 3.0, 1)).abs().max())
        > 1e-4
    )


def test_the_study_counts_what_the_judge_sees(folder, monkeypatch, capsys, tmp_path):
    status, _, err = call(
        monkeypatch,
        capsys,
        "captions",
        "--model",
        str(folder),
        "--guidances",
        "1",
        "3",
        "--samples",
        "4",
        "--stock",
        "2",
        "--steps",
        "2",
        "--digits",
        "20",
        "--out",
        tmp_path / "run",
    )
    assert status == 0, err
    data = stored(tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    assert data["right"].shape == (2, 10, 4)
    assert data["stock_right"].shape == (2, 10, 2)
    assert [row["drawn_by"] for row in rows] == ["jacobian-lab", "diffusers"] * 2 + ["autoencoder"]
    assert float(rows[0]["judge_sees_the_digit"]) == pytest.approx(data["right"][0].mean())
    model, (images, _) = load_latent(folder), mnist.digits("held-out")
    with torch.no_grad():
        back = model.decode(model.encode(images[:20])).clamp(-1, 1)
    psnr = 10 * torch.log10(4 / (back - images[:20]).square().mean((1, 2, 3)))
    assert float(rows[-1]["psnr_mean_dB"]) == pytest.approx(float(psnr.mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guidances", "1", "1"], "--guidances must each be given once: got 1.0 1.0"),
        (["--guidances", "0.5"], "one or more numbers from 1 on, below which diffusers takes 1"),
        (["--samples", "2"], "--samples must be at least 3"),
        (["--samples", "5", "--stock", "6"], "--stock from 1 to --samples"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, words, message):
    status, _, err = call(monkeypatch, capsys, "captions", *words)
    assert status == 2
    assert message in err


def test_images_of_another_size_are_refused(monkeypatch, capsys, folder, tmp_path):
    monkeypatch.setattr(captions, "SHAPE", (3, 64, 64))
    status, _, err = call(
        monkeypatch, capsys, "captions", "--model", str(folder), "--out", tmp_path / "run"
    )
    assert status == 2
    assert "makes images of shape (1, 32, 32)" in err


class TestShipped:
    def test_it_is_small_half_precision_and_as_its_card_says(self):
        files = [path for path in latent.PIPELINE.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 8e6
        for part in ("unet", "vae"):
            weights = load_file(latent.PIPELINE / part / "diffusion_pytorch_model.safetensors")
            assert {value.dtype for value in weights.values()} == {torch.float16}
        card = json.loads((latent.PIPELINE / "card.json").read_text())
        vae = json.loads((latent.PIPELINE / "vae" / "config.json").read_text())
        assert card["scaling_factor"] == vae["scaling_factor"]

    @pytest.mark.slow
    def test_captions_name_what_is_drawn(self):
        judge = mnist.load_classifier()
        named = []
        for digit in range(10):
            model = mnist.load_latent(latent.caption(digit), guidance=2.0)
            noise = seeded_noise(range(4), model.denoiser.shape)
            *_, last = sample(model.denoiser, noise, model.denoiser.schedule.times(15))
            with torch.no_grad():
                named.append((judge(model.decode(last.x0)).argmax(1) == digit).tolist())
        assert np.mean(named) >= 0.9

    def test_the_autoencoder_gives_digits_back(self):
        images, _ = mnist.digits("held-out")
        model = mnist.load_latent()
        with torch.no_grad():
            back = model.decode(model.encode(images[:50])).clamp(-1, 1)
        assert (
            float((10 * torch.log10(4 / (back - images[:50]).square().mean((1, 2, 3)))).mean()) > 29
        )
        assert float(model.encode(images[:50]).std()) == pytest.approx(1, abs=0.1)

    def test_its_operator_is_what_it_claims_to_be(self, capsys):
        model = mnist.load_latent(latent.caption(7), guidance=2.0)
        images, _ = mnist.digits("held-out")
        noise = seeded_noise([0], model.denoiser.shape)
        x_t = model.denoiser.schedule.add_noise(model.encode(images[7:8]).detach(), 500, noise)
        report = audit(JacobianOperator(model.denoiser, x_t, 500))
        assert report, str(report)
