"""The study guide, on a small network and on a flow."""

import numpy as np
import pytest
import torch

import mnist
from studies.frame.statistics import rate_interval
from studies.sampling.guide import PixelJudge, names_of, table

from conftest import call

FAST = ("--steps", "2", "--newton-steps", "1", "--samples", "2")


def test_guide_counts_what_both_judges_see(run, model):
    data, rows, _ = run("guide", "--classes", "3", "8", *FAST, "--model", model)
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


def test_noises_are_the_independent_trials_and_free_samples_cost_passes():
    named = np.array([[3, 8], [3, 3], [3, 8]])
    arrays = {
        "classes": np.array([3, 8]),
        "real_right": np.ones((2, 9), bool),
        "named": np.stack([named, named]),
        "free_named": np.array([[3, 8, 1]] * 2),
        "residual": np.zeros((6, 2, 2)),
        "passes": np.full((6, 3), 6),
        "free_passes": np.full((3, 3), 2),
    }
    rows = {row["images"]: row for row in table(arrays)}
    guided, free = rows["guided"], rows["unconstrained"]
    assert (guided["of"], guided["right"]) == (3, pytest.approx(5 / 6))
    assert (guided["right_low"], guided["right_high"]) == rate_interval(2.5, 3)[1:]
    assert (free["of"], free["right"]) == (3, pytest.approx(1 / 3))
    assert (guided["forward_passes"], free["forward_passes"]) == (6, 2)
    assert rows["guided to 3"]["forward_passes"] == 6
    assert rows["real digits"]["forward_passes"] == 0


def test_the_pixel_judge_knows_what_it_learnt():
    images, labels = (x[:300] for x in mnist.digits("held-out"))
    judge = PixelJudge(images, labels)
    assert torch.equal(judge(images), labels)
    assert (judge(-images) == labels).float().mean() < 0.5


def test_an_image_that_diverged_shows_no_digit():
    images, labels = (x[:20].clone() for x in mnist.digits("held-out"))
    images[3] = torch.nan
    named = names_of(images, mnist.load_classifier(), PixelJudge(images[4:], labels[4:]), "cpu")
    assert named[:, 3].tolist() == [-1, -1]
    assert (np.delete(named, 3, 1) == np.delete(labels.numpy(), 3)).mean() > 0.9


@pytest.mark.slow
def test_it_runs_on_a_flow(run, flow):
    data, _, _ = run("guide", "--classes", "2", *FAST, "--model", flow)
    assert data["time"].tolist() == pytest.approx([1.0, 0.01])
    assert np.isfinite(data["residual"]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "10"], "--classes must be one or more different digits, 0 to 9: got 10"),
        (["--classes", "3", "3"], "--classes must each be given once: got 3 3"),
        (["--change", "0"], "--change must be positive: got 0"),
        (["--newton-steps", "0"], "--newton-steps must be at least 1"),
        (["--direction", "krylov"], "add --rule dynamic"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, "guide", *words)
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.glob("runs/*"))


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "guide", "--help")
    assert status == 0
    assert "Example: jacobian-lab guide" in " ".join(out.split())
    assert "hashes" not in out
