"""The study of guidance: J is affine in the scale, and each measure is that of the dense J."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import load_latent
from studies.jacobian import (
    guidance,
)

import pipelines
from conftest import call

pytest.importorskip("diffusers")
PROMPT = "a photo of a seven"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The miniature's pipeline, narrow and with random weights."""
    return pipelines.miniature(tmp_path_factory.mktemp("pipelines") / "narrow")


def test_dense_measures_are_those_of_a_rotated_and_stretched_plane():
    A = np.diag([3.0, -1.0, 0.5])
    A[1:, 1:] += [[0, 2], [-2, 0]]  # eigenvalues -0.25 +- i sqrt(4 - 0.75^2) beside 3
    found = guidance.dense_measures(A)
    assert found["largest_dense"] == pytest.approx(3)
    assert found["trace_dense"] == pytest.approx(2.5)
    assert found["smallest_real_dense"] == pytest.approx(-0.25)
    # |A - A^T|_F = sqrt(2 * 4^2), |A + A^T|_F = 2 sqrt(9 + 1 + 0.25)
    assert found["asymmetry_dense"] == pytest.approx(32**0.5 / (2 * 10.25**0.5))


def test_a_digit_has_its_caption_unless_one_is_given():
    study = guidance.GuidanceStudy()
    assert [study.caption(i) for i in (7, 13)] == ["a photo of a seven", "a photo of a three"]
    assert guidance.GuidanceStudy(prompt="seven").caption(3) == "seven"


def test_guidance_is_that_of_load_latent_and_its_trace_a_straight_line(run, folder):
    data, rows, _ = run(
        "guidance",
        "--model",
        folder,
        "--digit",
        "7",
        "--digits",
        "1",
        "--guidances",
        "0",
        "1",
        "4",
        "--times",
        "600",
    )
    networks_at = {0: {"prompt": ""}, 1: {"prompt": PROMPT}, 4: {"prompt": PROMPT, "guidance": 4.0}}
    for s, words in enumerate(networks_at.values()):
        A = pipelines.dense_at_digit(folder, 7, 600, **words)
        truth = {
            "largest": abs(np.linalg.eigvals(A)).max(),
            "trace": np.trace(A),
            "asymmetry": np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T),
        }
        for key, value in truth.items():
            assert data[f"{key}_dense"][0, s] == pytest.approx(value, rel=1e-5), key
            low, high = data[f"{key}_interval"][0, s, 0]
            # of a 95 % interval: this seed's may be one that misses
            room = 0.5 * (high - low) + 1e-5 * abs(value)
            assert low - room <= value <= high + room, key
    zero, one, four = data["trace_dense"][0]
    assert four - zero == pytest.approx(4 * (one - zero), rel=1e-6)
    assert {row["caption"] for row in rows} == {PROMPT}
    assert data["denoised"].shape == (1, 3, 1, 32, 32)


def test_guidance_at_0_and_1_is_one_network_exactly(folder):
    config = guidance.GuidanceStudy(model=str(folder), negative_prompt="one")
    both = config.load(PROMPT, "cpu").denoiser
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for scale, prompt in ((0, "one"), (1, PROMPT)):
        assert torch.equal(
            guidance.at_scale(both, scale)(x, 500),
            load_latent(folder, prompt=prompt).denoiser(x, 500),
        )


def test_each_image_of_an_array_is_measured(run, folder, tmp_path):
    np.save(tmp_path / "two.npy", mnist.digits("held-out")[0][:2].numpy())
    words = ("--images", tmp_path / "two.npy", "--prompt", PROMPT, "--guidances", "1")
    data, rows, _ = run("guidance", "--model", folder, *words, "--times", "600")
    assert data["trace"].shape == (1, 1, 2)
    assert {row["digit"] for row in rows} == {"0", "1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model", "mnist"],
            "--model mnist takes no prompt, hence no guidance: take mnist-latent",
        ),
        (
            ["--model", "FOLDER", "--guidances", "1", "1"],
            "--guidances must each be given once: got 1.0 1.0",
        ),
        (["--model", "FOLDER", "--digits", "0"], "--digits must lie from 1 to"),
        (
            ["--model", "FOLDER", "--image", "PHOTO"],
            "has no caption: say with --prompt what it shows",
        ),
    ],
)
def test_slips_are_answered_with_a_remedy(monkeypatch, capsys, tmp_path, folder, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").touch()
    places = {"FOLDER": folder, "PHOTO": "photo.png"}
    words = [places.get(word, word) for word in words]
    status, _, err = call(monkeypatch, capsys, "guidance", *words)
    assert status == 2
    assert message in " ".join(err.split())


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "guidance", "--help")
    assert status == 0
    assert "Example: jacobian-lab guidance" in " ".join(out.split())
