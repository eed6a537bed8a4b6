import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file

import mnist
from jacobian_lab import InputError
from mnist import latent
from mnist.recipe import AutoencoderRecipe, LatentRecipe
from mnist.train import Run, train

import mnist_files
import pipelines

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mnist_files.write(tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="module")
def autoencoder(folder, tmp_path_factory):
    return train(
        AutoencoderRecipe(
            updates=30,
            batch_size=8,
            channels=(8, 8, 8),
            warmup=2,
            ema_decay=0.8,
            data_folder=folder,
            learning_rate=4e-3,
            out=tmp_path_factory.mktemp("autoencoder") / "run",
        )
    )


def recipe(folder, autoencoder, out, **options):
    options = {
        "updates": 4,
        "batch_size": 8,
        "checkpoint_every": 2,
        "channels": (16, 16),
        "warmup": 2,
    } | options
    return LatentRecipe(data_folder=folder, autoencoder=str(autoencoder), out=out, **options)


def digest(path):
    return hashlib.sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()


def test_the_autoencoder_learns_and_says_how_well(autoencoder):
    card = json.loads(autoencoder.with_suffix(".json").read_text())
    losses = [float(line) for line in autoencoder.with_name("losses.csv").read_text().split()[1:]]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert 5 < card["scores"]["held_out_psnr"] < 40
    assert card["command"].startswith("jacobian-lab train autoencoder --updates 30 --batch-size 8")


def test_an_interrupted_run_goes_on_to_the_same_weights_and_pipeline(
    folder, autoencoder, tmp_path, monkeypatch
):
    whole = train(recipe(folder, autoencoder, tmp_path / "whole"))
    step = Run.step

    def stops(self, at, *args):
        if at == 3:
            raise KeyboardInterrupt
        return step(self, at, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", stops)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(folder, autoencoder, tmp_path / "broken"))
    broken = train(recipe(folder, autoencoder, tmp_path / "broken"))
    assert digest(broken) == digest(whole)
    one, other = (
        sorted(p for p in (path.with_name("pipeline")).rglob("*") if p.is_file())
        for path in (whole, broken)
    )
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_stock_diffusers_loads_the_pipeline_that_was_trained(folder, autoencoder, tmp_path):
    path = train(recipe(folder, autoencoder, tmp_path / "run", prediction="epsilon"))
    card = json.loads(path.with_suffix(".json").read_text())
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        path.with_name("pipeline"), use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        ["a photo of a seven"] * 2, num_inference_steps=2, guidance_scale=2.0, output_type="np"
    ).images
    assert drawn.shape == (2, 32, 32, 1)
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.vae.config.scaling_factor == card["scaling_factor"]
    images, _ = mnist.digits("train", folder)
    with torch.no_grad():
        scaled = pipeline.vae.encode(images).latent_dist.sample() * card["scaling_factor"]
    assert float(scaled.std()) == pytest.approx(1, abs=0.02)


def test_captions_are_dropped_at_the_rate_that_is_asked(folder, autoencoder, tmp_path, monkeypatch):
    seen = []
    forward = latent.Captioned.forward

    def watched(self, x, t, tokens):
        seen.append(tokens)
        return forward(self, x, t, tokens)

    monkeypatch.setattr(latent.Captioned, "forward", watched)
    train(recipe(folder, autoencoder, tmp_path / "run", batch_size=64, dropped=0.25, updates=8))
    empty = (torch.cat(seen) == latent.tokens([""])).all(1).double().mean()
    assert 0.17 < float(empty) < 0.33  # 512 captions: 0.25 +- 4 standard deviations


def test_training_goes_on_from_the_parts_of_a_pipeline(folder, autoencoder, tmp_path):
    start = pipelines.miniature(tmp_path / "start", (8, 8, 8), (16, 16))
    options = {"start": start, "updates": 1, "warmup": 10**6}
    one = train(recipe(folder, autoencoder, tmp_path / "latent", **options))
    two = train(
        AutoencoderRecipe(
            batch_size=4, channels=(8, 8, 8), data_folder=folder, out=tmp_path / "vae", **options
        )
    )
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(start)
    trained = load_file(one.with_suffix(".safetensors"))
    for key, value in pipeline.unet.state_dict().items():
        torch.testing.assert_close(trained[f"unet.{key}"].float(), value, atol=1e-3, rtol=1e-3)
    trained, own = load_file(two.with_suffix(".safetensors")), pipeline.vae.state_dict()
    same = [key for key in own if "quant_conv" not in key]  # those are standardised
    assert all((trained[key].float() - own[key]).abs().max() < 1e-3 for key in same)
    card = json.loads(one.with_suffix(".json").read_text())
    assert card["start"].keys() == {"unet", "text_encoder"}
    assert f"--start {start}" in card["command"]
    assert json.loads(two.with_suffix(".json").read_text())["start"].keys() == {"vae"}


def test_a_start_of_another_architecture_is_told(folder, autoencoder, tmp_path):
    start = pipelines.miniature(tmp_path / "start", (8, 8, 16), (16, 32))
    with pytest.raises(InputError, match="its unet has another architecture"):
        train(recipe(folder, autoencoder, tmp_path / "run", start=start))


def test_an_autoencoder_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(InputError, match="no model"):
        train(recipe(folder, tmp_path / "nowhere" / "autoencoder", tmp_path / "run"))
