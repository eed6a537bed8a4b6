"""The study inpaint, on a small network, on a flow and on the user's files."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Secant
from mnist.data import SHAPE
from studies.frame.mask_files import read_mask
from studies.sampling import inpaint
from studies.sampling.inpaint import Inpaint

from conftest import as_bytes, call, png, relative

FAST = ("--steps", "2", "--newton-steps", "1", "--samples", "2")


def test_inpaint_samples_as_the_sampler_does_and_scores_against_the_truth(run, model):
    data, rows, _ = run(
        "inpaint", "--digit", "3", "--digits", "2", *FAST, "--model", model, "--last-of", "2"
    )
    images = mnist.digits("held-out")[0][3:5]
    denoiser = mnist.load_denoiser(model)
    constraint = Inpainting(images.repeat_interleave(2, 0), half((1, 32, 32)))
    seeds = [seed_of(0, number, k) for number in (3, 4) for k in (0, 1)]
    *_, last = sample(
        denoiser,
        seeded_noise(seeds, (1, 32, 32)),
        [999, 499],
        constraint,
        Newton("inexact", 1, Secant(0.2)),
        eta=1.0,
        seeds=seeds,
    )
    sampled, projected, free = data["images"]
    assert data["method"].tolist() == ["sampled", "projected", "unconstrained"]
    assert relative(sampled.reshape(4, 1, 32, 32), last.x0) < 1e-5
    np.testing.assert_allclose(data["residual"][:, -1, -1], last.residual, rtol=1e-4)
    left = np.s_[..., :16]
    np.testing.assert_allclose(
        projected[left], np.broadcast_to(images[:, None].numpy(), projected.shape)[left], atol=1e-6
    )
    np.testing.assert_array_equal(projected[..., 16:], sampled[..., 16:])
    error = (np.clip(free, -1, 1) - images[:, None].numpy()) ** 2
    np.testing.assert_allclose(data["psnr"][2], 10 * np.log10(4 / error.mean((2, 3, 4))), rtol=1e-4)
    assert np.isnan(data["observed"][..., 16:]).all()
    assert not np.isnan(data["observed"][left]).any()
    by_method = {row["method"]: row for row in rows}
    assert (
        float(by_method["projected"]["rmse_largest"])
        < 1e-6
        < float(by_method["sampled"]["rmse_median"])
    )
    assert by_method["sampled"]["forward_passes"] == "6"  # 2 times x (2 x 1 + 1)
    assert by_method["unconstrained"]["forward_passes"] == "2"


def test_fair_samples_take_a_product_for_each_krylov_step(run, model):
    data, rows, _ = run(
        "inpaint", "--aim", "fair", "--digit", "3", "--digits", "1", *FAST, "--model", model
    )
    images = mnist.digits("held-out")[0][3:4]
    denoiser = mnist.load_denoiser(model)
    seeds = [seed_of(0, 3, k) for k in (0, 1)]
    *_, last = sample(
        denoiser,
        seeded_noise(seeds, (1, 32, 32)),
        [999, 9],
        Inpainting(images, half((1, 32, 32))),
        Newton.fair(1),
        eta=1.0,
        seeds=seeds,
    )
    assert relative(data["images"][0, 0], last.x0) < 1e-5
    assert data["residual"].shape == (2, 2, 1)
    row = next(row for row in rows if row["method"] == "sampled")
    # 2 times x (D and a product)
    assert (row["forward_passes"], row["products_Jv"], row["products_JTu"]) == ("4", "0", "0")


def test_a_sample_that_is_near_enough_rests_and_the_table_has_the_mean_of_the_passes(run, model):
    words = ("inpaint", "--digits", "3", "--steps", "3", "--samples", "2", "--model", model)
    every, rows, _ = run(*words)
    near = float(np.quantile(every["residual"][:, :, 1:], 0.5))
    some, fewer, _ = run(*words, "--tolerance", str(near), out="near")
    passes = [{row["method"]: float(row["forward_passes"]) for row in r} for r in (rows, fewer)]
    assert passes[0]["sampled"] == 3 * 11
    assert passes[1]["sampled"] == pytest.approx(some["passes"][:, 0].mean(), rel=1e-2)
    assert 3 * 3 < passes[1]["sampled"] < 0.95 * 3 * 11
    assert passes[1]["unconstrained"] == 3
    assert some["residual"].shape == every["residual"].shape


def test_a_digit_is_the_same_alone_and_in_a_batch(run, model):
    together, _, _ = run(
        "inpaint",
        "--digit",
        "3",
        "--digits",
        "3",
        *FAST,
        "--change",  # short steps: a forward difference in float32 is off by 1e-4 of a step
        "0.05",
        "--model",
        model,
        "--mask",
        "random",
        "--share",
        "0.3",
    )
    alone, _, _ = run(
        "inpaint",
        "--digit",
        "4",
        "--digits",
        "1",
        *FAST,
        "--change",
        "0.05",
        "--model",
        model,
        "--mask",
        "random",
        "--share",
        "0.3",
        out="alone",
    )
    np.testing.assert_array_equal(together["observed"][1], alone["observed"][0])
    np.testing.assert_allclose(together["images"][:, 1], alone["images"][:, 0], atol=1e-4)
    assert relative(together["images"][0, 0], together["images"][0, 1]) > 0.1


def test_inpaint_takes_an_image_and_a_mask_and_tells_other_contents_apart(
    run, monkeypatch, capsys, tmp_path, model
):
    digit = mnist.digits("held-out")[0][7]
    image = png(tmp_path / "seven.png", as_bytes(digit)[2:-2, 2:-2])  # 28x28, as in MNIST
    mask = np.zeros((32, 32))
    mask[:, 10:] = 255
    words = (
        "inpaint",
        "--image",
        image,
        "--mask",
        png(tmp_path / "mask.png", mask),
        *FAST,
        "--model",
        model,
    )
    data, _, _ = run(*words)
    np.testing.assert_allclose(data["truth"][0], digit, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(data["observed"][0, 0]), mask == 0)
    png(tmp_path / "mask.png", 255 - mask)
    status, _, err = call(monkeypatch, capsys, *words, "--out", tmp_path / "run")
    assert status == 2
    assert "holds a run with other options: hashes" in err


def test_what_pads_a_small_mask_is_known(tmp_path):
    mask = np.zeros((28, 28))
    mask[5, 6] = 255
    found = read_mask(png(tmp_path / "mask.png", mask), SHAPE, digits=True).known[0]
    assert found[7, 8]
    assert not found[2:-2, 2:-2].sum() > 1
    assert found.sum() == 32 * 32 - 28 * 28 + 1


@pytest.mark.parametrize("mask", ["right", "top", "bottom", "box", "free-form"])
def test_masks_by_name(mask):
    known, said = Inpaint(mask=mask, side=10, strokes=1).known([0, 1], SHAPE, True)
    assert known.shape == (2, 1, 32, 32)
    assert 0 < int(known[0].sum()) < 1024
    assert said.startswith(f"{min(known.sum((1, 2, 3)).tolist())} ")
    assert torch.equal(
        Inpaint(mask=mask, side=10, strokes=1, invert_mask=True).known([0, 1], SHAPE, True).known,
        ~known,
    )
    assert torch.equal(known[0], known[1]) == (mask != "free-form")  # strokes are each digit's own


def test_it_runs_on_a_flow(run, flow):
    data, _, _ = run("inpaint", "--digits", "1", *FAST, "--model", flow)
    assert data["time"].tolist() == pytest.approx([1.0, 0.01])
    assert np.isfinite(data["residual"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mask": "free-form", "strokes": 500},
            "--mask free-form leaves no pixel known: take fewer --strokes",
        ),
        (
            {"mask": "random", "share": 1.0, "invert_mask": True},
            "--mask random, inverted, leaves no pixel known: leave --invert-mask out",
        ),
    ],
)
def test_a_mask_without_a_known_pixel_has_its_own_remedy(monkeypatch, options, message):
    covered = torch.zeros(1, 32, 32, dtype=torch.bool)  # as 500 strokes leave it, in ten seconds
    monkeypatch.setattr(inpaint, "free_form", lambda *_, **__: covered)
    with pytest.raises(InputError, match=f"^{message}$"):
        Inpaint(**options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--image", "none.png"],
            "there is no file none.png: --images must be an image of 32x32 or 28x28 pixels",
        ),
        (["--image", "text.png"], "text.png is not an image that can be read"),
        (["--image", "empty"], "empty: the folder holds no image files"),
        (
            ["--image", "wide.png"],
            "wide.png has 40x32 pixels: --images must be an image of 32x32 or 28x28 pixels",
        ),
        (["--mask", "wide.png"], "wide.png has 40x32 pixels: --mask must be"),
        (
            ["--mask", "black.png"],
            "the mask black.png is black everywhere, so that no pixel is known",
        ),
        (
            ["--mask", "middle"],
            "--mask must be left, right, top, bottom, box, free-form, random, or the path",
        ),
        (
            ["--mask", "box", "--side", "32"],
            "the side of the box, in pixels, must lie from 1 to 31: got 32",
        ),
        (["--mask", "random", "--share", "0"], "the share of known pixels must lie in (0, 1]"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    png(tmp_path / "wide.png", np.zeros((32, 40)))
    png(tmp_path / "black.png", np.zeros((32, 32)))
    status, _, err = call(monkeypatch, capsys, "inpaint", *words)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.glob("runs/*"))


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "inpaint", "--help")
    assert status == 0
    assert "Example: jacobian-lab inpaint" in " ".join(out.split())
    assert "hashes" not in out
