"""The study superres, on a small network, on a flow and on the user's file."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab.constraints.separable import shrink

from conftest import as_bytes, call, png

FAST = ("--steps", "2", "--newton-steps", "1", "--samples", "2")


@pytest.mark.parametrize("factor", [2, 8])
def test_superres_observes_shrunk_digits(run, factor, model):
    data, rows, _ = run(
        "superres", "--factor", factor, "--digit", "1", "--digits", "1", *FAST, "--model", model
    )
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


def test_superres_enlarges_the_users_small_image_without_scores(run, tmp_path, model):
    small = shrink(mnist.digits("held-out")[0][5:6], 4)[0].clamp(-1, 1)
    data, rows, _ = run(
        "superres",
        "--image",
        png(tmp_path / "small.png", as_bytes(small)),
        *FAST,
        "--model",
        model,
        "--project",
    )
    np.testing.assert_allclose(data["observed"][0], small, atol=1 / 255 + 1e-6)
    assert "psnr" not in rows[0]
    assert float(rows[1]["rmse_largest"]) < 1e-5


def test_each_of_several_small_images_is_enlarged(run, tmp_path, model):
    small = shrink(mnist.digits("held-out")[0][5:8], 4).clamp(-1, 1)
    files = [png(tmp_path / f"{k}.png", as_bytes(image)) for k, image in enumerate(small)]
    words = ("--digit", "3", *FAST, "--model", model)
    data, rows, _ = run("superres", "--images", *files, *words)
    assert data["sample"].tolist() == ["0.png", "1.png", "2.png"]
    assert data["digit"].tolist() == [3, 4, 5]
    assert data["images"].shape == (4, 3, 2, 1, 32, 32)
    assert rows[0]["digits"] == "3"
    projected = torch.from_numpy(data["images"][1, :, 1])
    np.testing.assert_allclose(shrink(projected, 4), data["observed"], atol=1e-5)


def test_it_runs_on_a_flow(run, flow):
    data, _, _ = run("superres", "--digits", "1", "--direction", "gradient", *FAST, "--model", flow)
    assert data["time"].tolist() == pytest.approx([1.0, 0.01])
    assert np.isfinite(data["residual"]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--image", "black.png", "--factor", "2"],
            "black.png has 32x32 pixels: --images must be an image of 16x16",
        ),
        (["--factor", "3"], "3"),
        (["--digit", "5000"], "--digit 5000 is not a held-out digit"),
        (["--digits", "0"], "--digits must lie from 1 to 5000: got 0"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    png(tmp_path / "wide.png", np.zeros((32, 40)))
    png(tmp_path / "black.png", np.zeros((32, 32)))
    status, _, err = call(monkeypatch, capsys, "superres", *words)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.glob("runs/*"))


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "superres", "--help")
    assert status == 0
    assert "Example: jacobian-lab superres" in " ".join(out.split())
    assert "hashes" not in out
