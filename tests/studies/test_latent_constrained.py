"""inpaint, superres, style and guide on latent models: random miniatures, and pipelines of colour
images.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import mnist
from jacobian_lab import load_latent
from jacobian_lab.constraints.decoded import Decoded, latent_inpainting
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.losses import style
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import shrink
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Secant
from studies.frame.mask_files import read_mask
from studies.frame.study import Pieces
from studies.sampling import (
    guide,
    inpaint,
    style_transfer,
    superres,
)
from studies.sampling.inpaint import Inpaint
from studies.sampling.style_features import load_features
from studies.sampling.style_transfer import StyleTransfer
from studies.sampling.superres import Superres

from conftest import call, relative, stored

pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
transformers = pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
import pipelines  # noqa: E402 - needs what was asked for above

FAST = {"steps": 2, "newton_steps": 1, "samples": 2, "last_of": 2}
WORDS = ("--steps", "2", "--newton-steps", "1", "--samples", "2")
COLOUR = (3, 64, 64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A miniature and a pipeline of colour images, both random, and a small CLIP; as diffusers and
    transformers save them.
    """
    root = tmp_path_factory.mktemp("models")
    pipelines.miniature(root / "mini")
    pipelines.stable_diffusion().save_pretrained(root / "colour")
    pipelines.clip_vision(root / "clip")
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(root / "picture.png")
    return root


@pytest.fixture
def study(tmp_path):
    """Compute a study and make its figure, which is not drawn; return its arrays and the rows of
    its table.
    """

    def command(module, config, **options):
        (tmp_path / "pieces").mkdir()
        data = module.compute(config(**FAST | options), Pieces(tmp_path / "pieces"))
        shutil.rmtree(tmp_path / "pieces")
        assert module.plot(data).subfigs
        return data, module.table(data)

    return command


@pytest.mark.parametrize("through", ["secant", "tangent", "backprop", "latents"])
def test_inpaint_carries_the_pixels_through_the_autoencoder_and_decodes(study, folders, through):
    data, rows = study(
        inpaint, Inpaint, model=str(folders / "mini"), through=through, digit=3, digits=2
    )
    images = mnist.digits("held-out")[0][3:5]
    latent = load_latent(folders / "mini")
    truth = images.repeat_interleave(2, 0)
    problem = Inpainting(truth, half((1, 32, 32)))
    goal = (
        latent_inpainting(truth, problem.mask, latent.encode)
        if through == "latents"
        else Decoded(problem, latent.encode, latent.decode, through)
    )
    seeds = [seed_of(0, number, k) for number in (3, 4) for k in (0, 1)]
    states = list(
        sample(
            latent.denoiser,
            seeded_noise(seeds, (4, 8, 8)),
            [999, 499],
            goal,
            Newton("inexact", 1, Secant(0.2)),
            eta=1.0,
            seeds=seeds,
        )
    )
    with torch.no_grad():
        drawn, bound = latent.decode(states[-1].x0), latent.decode(latent.encode(images))
        along = torch.stack([problem.residual(latent.decode(state.x0)) for state in states], 1)
    sampled, projected, free, autoencoder = data["images"]
    assert data["method"].tolist() == ["sampled", "projected", "unconstrained", "autoencoder"]
    assert relative(sampled.reshape(4, 1, 32, 32), drawn) < 1e-5
    assert relative(sampled, free) > 1e-4
    np.testing.assert_allclose(data["residual"].reshape(4, 4), along, rtol=1e-4)
    # to the bit
    np.testing.assert_array_equal(
        projected[..., :16], np.repeat(images.numpy()[:, None], 2, 1)[..., :16]
    )
    np.testing.assert_array_equal(projected[..., 16:], sampled[..., 16:])
    assert relative(autoencoder[:, 1], bound) < 1e-5
    error = (bound.clamp(-1, 1) - images).square().mean((1, 2, 3))
    assert float(rows[3]["psnr"]) == pytest.approx(
        float((10 * torch.log10(4 / error)).mean()), rel=1e-4
    )
    assert rows[0]["forward_passes"] == 6  # of the denoiser: 2 times x (2 x 1 + 1)


def test_a_pipeline_that_diffusers_saved_elsewhere_gives_the_same_samples(study, folders, tmp_path):
    import diffusers

    diffusers.StableDiffusionPipeline.from_pretrained(folders / "mini").save_pretrained(
        tmp_path / "elsewhere"
    )
    first, second = (
        study(inpaint, Inpaint, model=str(folder), digits=1)[0]["images"]
        for folder in (folders / "mini", tmp_path / "elsewhere")
    )
    np.testing.assert_array_equal(first, second)


def test_prompt_and_guidance_reach_the_model_and_the_record(
    monkeypatch, capsys, folders, study, tmp_path
):
    words = (
        "inpaint",
        "--model",
        folders / "mini",
        "--digits",
        "1",
        *WORDS,
        "--last-of",
        "2",
        "--out",
        tmp_path / "told",
        "--prompt",
        "a photo of a three",
        "--negative-prompt",
        "a photo of a four",
        "--guidance",
        "4",
    )
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 0, err
    data = stored(tmp_path / "told")
    told = data["images"][2, 0]
    latent = load_latent(
        folders / "mini",
        prompt="a photo of a three",
        negative_prompt="a photo of a four",
        guidance=4.0,
    )
    seeds = [seed_of(0, 0, k) for k in (0, 1)]
    *_, last = sample(
        latent.denoiser, seeded_noise(seeds, (4, 8, 8)), [999, 499], eta=1.0, seeds=seeds
    )
    with torch.no_grad():
        assert relative(told, latent.decode(last.x0)) < 1e-5
    config, manifest = (
        json.loads((tmp_path / "told" / f"{name}.json").read_text())
        for name in ("config", "manifest")
    )
    assert (config["prompt"], config["guidance"], config["through"]) == (
        "a photo of a three",
        4.0,
        "secant",
    )
    assert set(manifest["weights"]) == {str(folders / "mini"), "classifier"}


def test_colour_images_are_inpainted_from_a_file_and_scored_without_a_judge(
    study, folders, tmp_path
):
    mask = np.zeros((72, 96), dtype=np.uint8)
    mask[:, :60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    data, rows = study(
        inpaint,
        Inpaint,
        model=str(folders / "colour"),
        images=(folders / "picture.png",),
        mask=str(tmp_path / "mask.png"),
        project=True,
    )
    assert data["images"].shape == (4, 1, 2, *COLOUR)
    known = ~np.isnan(data["observed"][0, 0])
    # the middle 72 of 96 columns, so 48 of 72 are known
    assert 0 < np.abs(known.sum(1) - 48 / 72 * 64).max() <= 1
    np.testing.assert_array_equal(data["images"][1, 0, 0][:, known], data["truth"][0][:, known])
    assert "agreement" not in rows[0]
    assert {"psnr", "ssim"} < set(rows[0])


@pytest.mark.parametrize("size", [(16, 16), (96, 72)])
def test_superres_takes_a_small_colour_image_or_shrinks_a_whole_one(study, folders, tmp_path, size):
    Image.open(folders / "picture.png").resize(size).save(tmp_path / "image.png")
    data, rows = study(
        superres, Superres, model=str(folders / "colour"), images=(tmp_path / "image.png",)
    )
    whole = size != (16, 16)
    assert ("truth" in data, "psnr" in rows[0], "autoencoder" in data["method"]) == (whole,) * 3
    assert data["observed"].shape == (1, 3, 16, 16)
    if whole:
        np.testing.assert_allclose(
            data["observed"], shrink(torch.from_numpy(data["truth"]), 4), atol=1e-6
        )
    else:
        np.testing.assert_allclose(
            (data["observed"][0].transpose(1, 2, 0) + 1) * 127.5,
            np.asarray(Image.open(tmp_path / "image.png")),
            atol=1e-3,
        )
    assert (
        relative(
            shrink(torch.from_numpy(data["images"][1, 0]), 4), np.repeat(data["observed"], 2, 0)
        )
        < 1e-5
    )


def test_the_style_of_a_colour_image_by_clip(study, folders):
    data, rows = study(
        style_transfer,
        StyleTransfer,
        model=str(folders / "colour"),
        images=(folders / "picture.png",),
        features=str(folders / "clip"),
    )
    loss = style(torch.from_numpy(data["style"]), load_features(str(folders / "clip"), (), "cpu"))
    np.testing.assert_allclose(
        data["after"][:, 0], loss.residual(torch.from_numpy(data["styled"][:, 0])), rtol=1e-4
    )
    np.testing.assert_allclose(
        data["before"][:, 0], loss.residual(torch.from_numpy(data["free"])), rtol=1e-4
    )
    assert {row["quantity"] for row in rows} == {"style loss", "style loss, unconstrained"}


@pytest.mark.slow
def test_style_and_guide_draw_digits_by_latents(study, folders, monkeypatch):
    monkeypatch.setattr(guide, "LEARNT", 200)  # for speed
    styled, _ = study(style_transfer, StyleTransfer, model=str(folders / "mini"), digits=3)
    assert styled["styled"].shape == (2, 3, 1, 32, 32)
    assert styled["styled_thickness"].shape == (2, 3)
    guided, _ = study(
        guide, guide.Guide, model=str(folders / "mini"), classes=(3, 8), through="backprop"
    )
    loss = torch.nn.functional.cross_entropy(
        mnist.load_classifier()(torch.from_numpy(guided["images"]).flatten(0, 1)),
        torch.tensor([3, 8]).repeat(2),
        reduction="none",
    )
    np.testing.assert_allclose(
        guided["residual"][:, -1, -1], (loss - guide.TARGET).clamp(min=0).detach(), rtol=1e-3
    )


def test_weights_of_the_style_make_the_run(folders, tmp_path):
    shutil.copytree(folders / "clip", tmp_path / "clip")
    options = {
        "model": str(folders / "colour"),
        "images": (folders / "picture.png",),
        "features": str(tmp_path / "clip"),
    }
    before = StyleTransfer(**options)
    torch.manual_seed(1)
    network = transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig.from_pretrained(tmp_path / "clip")
    )
    network.save_pretrained(tmp_path / "clip")
    assert before.hashes["features"] != StyleTransfer(**options).hashes["features"]
    assert set(before.models()) == {str(folders / "colour")}  # no classifier of digits


def test_a_mask_for_large_images_has_any_size(tmp_path):
    Image.fromarray(np.array([[255, 0], [0, 255]], dtype=np.uint8)).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", (3, 40, 60)).known
    assert mask.shape == (1, 40, 60)
    assert mask[0, 0, 0]
    assert not mask[0, 0, 59]
    assert mask[0, 39, 59]


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        (
            "colour",
            ["inpaint"],
            "is not of our digits, but of samples of 3x64x64: name yours with --images",
        ),
        (
            "colour",
            ["style", "--image", "PICTURE"],
            "openai/clip-vit-base-patch16: there is no such folder, and no such hub id",
        ),
        (
            "colour",
            ["style", "--image", "PICTURE", "--features", "classifier"],
            "--features classifier is of digits",
        ),
        (
            "colour",
            ["style", "--image", "PICTURE", "--features", "COLOUR"],
            "is not the folder of a CLIP vision model",
        ),
        (
            "colour",
            ["style", "--image", "PICTURE", "--features", "TEXT"],
            "is a clip_text_model: expected a CLIP vision model",
        ),
        (
            "colour",
            ["style", "--image", "PICTURE", "--features", "EMPTY"],
            "there are no weights in",
        ),
        (
            "colour",
            ["style", "--image", "PICTURE", "--features", "CLIP", "--layers", "x"],
            "the network has no layer x",
        ),
        (
            "colour",
            ["style", "--image", "PICTURE", "--features", "CLIP", "--layers", "post_layernorm"],
            "expected a vector for",
        ),
        ("colour", ["guide"], "guide needs a classifier of what is drawn"),
        ("colour", ["superres", "--image", "PICTURE", "--factor", "8", "--project"], None),
        (
            "colour",
            ["superres", "--image", "TINY"],
            "tiny.png has 20x30 pixels: --images must be small images, all of 16x16 pixels, or",
        ),
        (
            "colour",
            ["inpaint", "--image", "none.png"],
            "there is no file none.png: --images must be an image file",
        ),
        (
            "colour",
            ["inpaint", "--image", "PICTURE", "--mask", "TEXT/config.json"],
            "is not an image that can be read",
        ),
        (
            "mini",
            ["inpaint", "--image", "PICTURE"],
            "picture.png has 96x72 pixels: --images must be an image of 32x32 or 28x28",
        ),
        (
            "mini",
            ["inpaint", "--mask", "random", "--through", "latents"],
            "--through latents does not do for this mask",
        ),
        ("mini", ["superres", "--through", "latents"], "--through latents is for masks"),
        (
            "mini",
            ["inpaint", "--negative-prompt", "a photo of a four"],
            "--negative-prompt has no effect with --guidance 1",
        ),
        (
            "mnist",
            ["inpaint", "--guidance", "2"],
            "--guidance is for latent models, and --model mnist denoises pixels",
        ),
        ("mnist", ["guide", "--prompt", "three"], "--prompt is for latent models"),
        ("oracle", ["superres", "--through", "backprop"], "--through is for latent models"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, folders, tmp_path, model, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copy(folders / "clip" / "config.json", tmp_path / "empty")
    Image.new("RGB", (20, 30)).save(tmp_path / "tiny.png")
    places = {
        "PICTURE": folders / "picture.png",
        "COLOUR": folders / "colour",
        "TEXT": folders / "colour" / "text_encoder",
        "CLIP": folders / "clip",
        "EMPTY": tmp_path / "empty",
        "TINY": tmp_path / "tiny.png",
        "TEXT/config.json": folders / "colour" / "text_encoder" / "config.json",
    }
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    name = folders / model if (folders / model).is_dir() else model
    status, _, err = call(
        monkeypatch, capsys, *(places.get(word, word) for word in words), "--model", name, *WORDS
    )
    assert status == (2 if message else 0), err
    assert (message or "") in " ".join(err.replace("│", " ").split())
    assert bool(list(tmp_path.glob("runs/*"))) == (message is None)
