"""The study style, on a small network, on a flow and on the user's file."""

import numpy as np
import pytest
import torch

import mnist
from studies.sampling.style_transfer import slant, thickness

from conftest import as_bytes, call, png

FAST = ("--steps", "2", "--newton-steps", "1", "--samples", "2")


def test_style_says_what_the_loss_was_and_is(run, model):
    data, rows, _ = run(
        "style", "--digit", "10", "--digits", "3", *FAST, "--model", model, "--layers", "body.2"
    )
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


def test_style_of_the_users_image(run, tmp_path, model):
    image = png(tmp_path / "four.png", as_bytes(mnist.digits("held-out")[0][4]))
    data, _, _ = run("style", "--image", image, *FAST, "--model", model)
    assert data["labels"].tolist() == [4]  # as the classifier sees it


def test_thickness_and_slant_of_bars():
    bars = torch.full((3, 1, 32, 32), -1.0)
    bars[0, 0, 4:28, 14:16] = bars[1, 0, 4:28, 12:18] = 1
    for row in range(4, 28):
        column = round(16 + 0.5 * (15.5 - row))  # one to the right for two upwards
        bars[2, 0, row, column - 1 : column + 1] = 1
    assert thickness(bars[:2]).tolist() == pytest.approx([2, 6], rel=0.3)
    assert slant(bars).tolist() == pytest.approx([0, 0, 0.5], abs=0.03)


def test_it_runs_on_a_flow(run, flow):
    data, _, _ = run("style", "--digits", "1", "--rule", "dynamic", *FAST, "--model", flow)
    assert data["time"].tolist() == pytest.approx([1.0, 0.01])
    assert np.isfinite(data["residual"]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layers", "body.99"], "the network has no layer body.99"),
        (["--eta", "2"], "--eta must lie from 0 to 1: got 2"),
        (["--steps", "2000"], "steps must lie from 1 to 1000"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, "style", *words)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.glob("runs/*"))


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "style", "--help")
    assert status == 0
    assert "Example: jacobian-lab style" in " ".join(out.split())
    assert "hashes" not in out
