"""The three directions at a noisy digit."""

import numpy as np
import pytest
import torch

import mnist
from mnist.evaluate import noisy_digit

import networks
import tiny_model
from conftest import relative


def test_steps_and_what_they_achieve_are_those_of_the_dense_jacobian(run, tiny):
    words = ("--times", "500", "--rconds", "0.1", "--change", "0.5", "--pixel", "3", "4")
    data, rows, _ = run("directions", *tiny(), *words)
    denoiser, image = tiny_model.make(), torch.from_numpy(tiny_model.images()[0])
    x_t = noisy_digit(denoiser, image, 500, 0, 0)
    A = networks.dense_at(tiny_model.make(), image, 500)
    e = data["error"][0].reshape(-1).astype(np.float64)
    assert np.flatnonzero(e).tolist() == [3 * 8 + 4]
    before = data["denoised"][0].reshape(-1)[3 * 8 + 4]
    assert before + e[3 * 8 + 4] == pytest.approx(-np.sign(before), abs=1e-5)  # inverted
    directions = (A @ e, A.T @ e, np.linalg.pinv(A, rcond=0.1) @ e)
    for step, direction in zip(data["steps"][0], directions, strict=True):
        assert abs(step).max() == pytest.approx(0.5)
        assert relative(step.reshape(-1), 0.5 * direction / abs(direction).max()) < 1e-2
    with torch.no_grad():
        after = denoiser(x_t + torch.from_numpy(data["steps"][0]).float(), 500)
    assert relative(data["after"][0], after) < 1e-4
    change = (data["after"][0] - data["denoised"][0]).reshape(3, -1)
    assert [float(row["achieved"]) for row in rows] == pytest.approx(
        (change @ e / (e @ e)).tolist(), rel=1e-4
    )


def test_with_a_target_the_whole_digit_is_wanted(run, model):
    words = ("--model", model, "--digits", "1", "--times", "500", "--rconds", "0.1")
    data, rows, _ = run("directions", *words, "--target", "7")
    wanted = mnist.digits("held-out")[0][7].numpy() - data["denoised"][0]
    np.testing.assert_allclose(data["error"][0], wanted, atol=1e-6)
    assert "step_near_the_pixel" not in rows[0]
