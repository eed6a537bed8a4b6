"""The studies inpaint, superres, style and guide do what they say, on a small network, on a flow
and on the user's files.
"""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import shrink
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Secant
from mnist.weights import build_denoiser, save_model
from studies.frame.mask_files import read_mask
from studies.sampling.guide import PixelJudge
from studies.sampling.inpaint import Inpaint
from studies.sampling.style_transfer import slant, thickness

from conftest import call, relative

FAST = ("--steps", "2", "--newton-steps", "1", "--samples", "2")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, model):
    """Run a study on the small network; return its arrays and the rows of its table."""

    def command(*words, out="run", model=model):
        status, _, err = call(
            monkeypatch, capsys, *words, "--model", model, "--out", tmp_path / out
        )
        assert status == 0, err
        with np.load(tmp_path / out / "data.npz") as stored:
            data = dict(stored)
        assert (tmp_path / out / "figure.png").stat().st_size > 10_000
        return data, list(csv.DictReader((tmp_path / out / "table.csv").read_text().splitlines()))

    return command


@pytest.fixture
def flow(tmp_path):
    """A small random rectified flow on disk."""
    torch.manual_seed(1)
    architecture = {"channels": [32, 32, 32]}
    denoiser = build_denoiser(architecture, "flow")
    for parameter in denoiser.network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    save_model(
        tmp_path / "flow",
        denoiser.network,
        {"kind": "denoiser", "architecture": architecture, "prediction": "flow"},
    )
    return str(tmp_path / "flow")


def png(path, gray):
    Image.fromarray(np.asarray(gray, dtype=np.uint8)).save(path)
    return path


def as_bytes(image):
    """A digit in [-1, 1], (1, 32, 32), as the gray pixels of its file."""
    return np.rint((np.asarray(image)[0] + 1) * 127.5)


def test_inpaint_samples_as_the_sampler_does_and_scores_against_the_truth(run, model):
    data, rows = run("inpaint", "--digit", "3", "--digits", "2", *FAST, "--last-of", "2")
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
    assert data["methods"].tolist() == ["sampled", "projected", "unconstrained"]
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


def test_a_digit_is_the_same_alone_and_in_a_batch(run):
    together, _ = run(
        "inpaint", "--digit", "3", "--digits", "3", *FAST, "--mask", "random", "--share", "0.3"
    )
    alone, _ = run(
        "inpaint",
        "--digit",
        "4",
        "--digits",
        "1",
        *FAST,
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
    words = ("inpaint", "--image", image, "--mask", png(tmp_path / "mask.png", mask), *FAST)
    data, _ = run(*words)
    np.testing.assert_allclose(data["truth"][0], digit, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(data["observed"][0, 0]), mask == 0)
    png(tmp_path / "mask.png", 255 - mask)
    status, _, err = call(monkeypatch, capsys, *words, "--model", model, "--out", tmp_path / "run")
    assert status == 2
    assert "holds a run with other options: hashes" in err


def test_what_pads_a_small_mask_is_known(tmp_path):
    mask = np.zeros((28, 28))
    mask[5, 6] = 255
    found = read_mask(png(tmp_path / "mask.png", mask)).known[0]
    assert found[7, 8]
    assert not found[2:-2, 2:-2].sum() > 1
    assert found.sum() == 32 * 32 - 28 * 28 + 1


@pytest.mark.parametrize("mask", ["right", "top", "bottom", "box", "free-form"])
def test_masks_by_name(mask):
    known, said = Inpaint(mask=mask, side=10, strokes=1).known([0, 1])
    assert known.shape == (2, 1, 32, 32)
    assert 0 < int(known[0].sum()) < 1024
    assert said.startswith(f"{min(known.sum((1, 2, 3)).tolist())} ")
    assert torch.equal(
        Inpaint(mask=mask, side=10, strokes=1, invert_mask=True).known([0, 1]).known, ~known
    )
    assert torch.equal(known[0], known[1]) == (mask != "free-form")  # strokes are each digit's own


@pytest.mark.parametrize("factor", [2, 8])
def test_superres_observes_shrunk_digits(run, factor):
    data, rows = run("superres", "--factor", factor, "--digit", "1", "--digits", "1", *FAST)
    images = mnist.digits("held-out")[0][1:2]
    np.testing.assert_allclose(data["observed"], shrink(images, factor), atol=1e-6)
    projected, shortest = (torch.from_numpy(data["images"][m, 0]) for m in (1, 3))
    for image in (projected, shortest):
        np.testing.assert_allclose(shrink(image, factor), data["observed"].repeat(2, 0), atol=1e-5)
    assert shortest.norm() < projected.norm()  # of all that fulfil the observation
    assert [row["method"] for row in rows] == [
        "sampled",
        "projected",
        "unconstrained",
        "pseudo-inverse",
    ]


def test_superres_enlarges_the_users_small_image_without_scores(run, tmp_path):
    small = shrink(mnist.digits("held-out")[0][5:6], 4)[0].clamp(-1, 1)
    data, rows = run(
        "superres", "--image", png(tmp_path / "small.png", as_bytes(small)), *FAST, "--project"
    )
    np.testing.assert_allclose(data["observed"][0], small, atol=1 / 255 + 1e-6)
    assert "psnr" not in rows[0]
    assert float(rows[1]["rmse_largest"]) < 1e-5


def test_style_says_what_the_loss_was_and_is(run):
    data, rows = run("style", "--digit", "10", "--digits", "3", *FAST, "--layers", "body.2")
    assert data["styled"].shape == (2, 3, 1, 32, 32)
    body = mnist.load_classifier().body[:3]
    gram = [
        f @ f.mT
        for f in (
            body(torch.from_numpy(x)).flatten(2) for x in (data["styled"][:, 1], data["style"][1:2])
        )
    ]
    expected = ((gram[0] - gram[1]) ** 2).sum((1, 2)) / (gram[1] ** 2).sum((1, 2))
    np.testing.assert_allclose(data["after"][:, 1], expected.detach(), rtol=1e-3)
    free = thickness(torch.from_numpy(data["free"]))
    (row,) = [
        row
        for row in rows
        if row["style_of_digit"] == "11" and row["quantity"] == "thickness, unconstrained"
    ]
    assert float(row["mean"]) == pytest.approx(float(free.mean()), rel=1e-4)
    assert float(row["of_the_style"]) == pytest.approx(
        float(thickness(mnist.digits("held-out")[0][11:12])), rel=1e-4
    )


def test_style_of_the_users_image(run, tmp_path):
    image = png(tmp_path / "four.png", as_bytes(mnist.digits("held-out")[0][4]))
    data, _ = run("style", "--image", image, *FAST)
    assert data["labels"].tolist() == [4]  # as the classifier sees it


def test_thickness_and_slant_of_bars():
    bars = torch.full((3, 1, 32, 32), -1.0)
    bars[0, 0, 4:28, 14:16] = bars[1, 0, 4:28, 12:18] = 1
    for row in range(4, 28):
        column = round(16 + 0.5 * (15.5 - row))  # one to the right for two upwards
        bars[2, 0, row, column - 1 : column + 1] = 1
    assert thickness(bars[:2]).tolist() == pytest.approx([2, 6], rel=0.3)
    assert slant(bars).tolist() == pytest.approx([0, 0, 0.5], abs=0.03)


def test_guide_counts_what_both_judges_see(run):
    data, rows = run("guide", "--classes", "3", "8", *FAST)
    assert data["images"].shape == (2, 2, 1, 32, 32)
    classifier = mnist.load_classifier()
    named = (
        classifier(torch.from_numpy(data["images"]).flatten(0, 1).clamp(-1, 1))
        .argmax(1)
        .reshape(2, 2)
    )
    np.testing.assert_array_equal(data["named"][0], named)
    rates = {(row["images"], row["judge"]): float(row["right"]) for row in rows}
    assert rates["guided", "classifier that guides"] == pytest.approx(
        float((named == torch.tensor([3, 8])).float().mean())
    )
    assert rates["real digits", "classifier that guides"] > 0.99
    assert (
        0.95
        < rates["real digits", "second judge, on pixels"]
        < rates["real digits", "classifier that guides"]
    )


def test_the_pixel_judge_knows_what_it_learnt():
    images, labels = (x[:300] for x in mnist.digits("held-out"))
    judge = PixelJudge(images, labels)
    assert torch.equal(judge(images), labels)
    assert (judge(-images) == labels).float().mean() < 0.5


@pytest.mark.parametrize(
    "words",
    [
        ("inpaint", "--digits", "1"),
        ("superres", "--digits", "1", "--direction", "gradient"),
        ("style", "--digits", "1", "--rule", "dynamic"),
        ("guide", "--classes", "2"),
    ],
)
def test_each_study_runs_on_a_flow(run, flow, words):
    data, _ = run(*words, *FAST, model=flow)
    assert data["times"].tolist() == pytest.approx([1.0, 0.01])
    assert np.isfinite(data["residual"]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["inpaint", "--image", "none.png"],
            "there is no file none.png: --image must be an image of 32x32 or 28x28 pixels",
        ),
        (["inpaint", "--image", "text.png"], "text.png is not an image that can be read"),
        (["inpaint", "--image", "."], ". cannot be read"),
        (
            ["inpaint", "--image", "wide.png"],
            "wide.png has 40x32 pixels: --image must be an image of 32x32 or 28x28 pixels",
        ),
        (["inpaint", "--mask", "wide.png"], "wide.png has 40x32 pixels: --mask must be"),
        (
            ["inpaint", "--mask", "black.png"],
            "the mask black.png is black everywhere, so that no pixel is known",
        ),
        (
            ["inpaint", "--mask", "middle"],
            "--mask must be left, right, top, bottom, box, free-form, random, or the path",
        ),
        (
            ["inpaint", "--mask", "box", "--side", "32"],
            "the side of the box must lie from 1 to 31 pixels: got 32",
        ),
        (
            ["inpaint", "--mask", "random", "--share", "0"],
            "the share of known pixels must lie in (0, 1]",
        ),
        (
            ["superres", "--image", "black.png", "--factor", "2"],
            "black.png has 32x32 pixels: --image must be an image of 16x16",
        ),
        (["superres", "--factor", "3"], "3"),
        (["superres", "--digit", "5000"], "--digit 5000 is not a held-out digit"),
        (["superres", "--digits", "0"], "--digits must lie from 1 to 5000: got 0"),
        (["style", "--layers", "body.99"], "the network has no layer body.99"),
        (["style", "--eta", "2"], "--eta must lie from 0 to 1: got 2"),
        (["style", "--steps", "2000"], "steps must lie from 1 to 1000"),
        (
            ["guide", "--classes", "10"],
            "--classes must be one or more different digits, 0 to 9: got 10",
        ),
        (["guide", "--classes", "3", "3"], "--classes must be one or more different digits"),
        (["guide", "--change", "0"], "--change must be positive: got 0"),
        (["guide", "--newton-steps", "0"], "--newton-steps must be at least 1"),
        (["guide", "--direction", "krylov"], "add --rule dynamic"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    png(tmp_path / "wide.png", np.zeros((32, 40)))
    png(tmp_path / "black.png", np.zeros((32, 32)))
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.glob("runs/*"))


def test_files_are_checked_in_python_too(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        Inpaint(image=tmp_path / "none.png")


@pytest.mark.parametrize("study", ["inpaint", "superres", "style", "guide"])
def test_help_has_a_runnable_example(monkeypatch, capsys, study):
    status, out, _ = call(monkeypatch, capsys, study, "--help")
    assert status == 0
    assert f"Example: jacobian-lab {study}" in " ".join(out.split())
    assert "hashes" not in out
