"""Runs of the contest: they do not depend on how many digits there are, and may fail."""

from functools import partial

import contestants
import numpy as np
import pytest
import torch

import mnist
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.sampler import seed_of
from mnist.problems import problem
from studies.contest import entries
from studies.contest.entries import (
    FIRST,
    OTHERS,
    Entry,
    at_edge,
    execute,
    kernel_distance,
    true_features,
    twice,
)
from studies.contest.rules import Contest


@pytest.fixture
def enter(monkeypatch):
    """Return a function that makes one method the only contestant, on every track."""
    return partial(contestants.enter, monkeypatch)


def test_a_run_does_not_depend_on_how_many_digits_it_has():
    entry, config = (
        Entry("random", "inexact Newton", "searched", {"travel": 1.0, "newton_steps": 1}, 2),
        Contest(),
    )
    four, two = (
        execute(entry, config, FIRST, count, 0)["images"].astype(float) for count in (4, 2)
    )
    np.testing.assert_allclose(four[:2], two, atol=5e-3)
    first, _, _ = problem("random", FIRST, 2, 0)
    other, _, _ = problem("random", OTHERS, 2, 0)
    assert (first.mask != other.mask).any()


def test_a_run_that_diverges_is_counted_as_failed(monkeypatch, enter):
    def fails(denoiser, constraint, seeds, steps):
        if seeds[0] == seed_of(0, 7, FIRST):
            raise DivergenceError("too far", [])
        return torch.zeros(len(seeds), *denoiser.shape)

    monkeypatch.setattr(entries, "BATCH", 2)
    enter(fails)
    found = execute(Entry("half", "tried", "authors", {}, 1), Contest(), FIRST, 4, 0)
    assert np.isnan(found["psnr"]).tolist() == [True, True, False, False]


def test_the_kernel_distance_tells_noise_from_digits():
    judge = mnist.load_classifier()
    images = mnist.digits("held-out")[0][:200]
    real, other = (judge.features(part).detach().numpy() for part in (images[:100], images[100:]))
    noise = torch.randn(100, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    noise = judge.features(noise).detach().numpy()
    near, spread = kernel_distance(other, real)
    far, _ = kernel_distance(noise, real)
    assert abs(near) < 5 * spread
    assert far > 10 * spread


def test_distance_and_diversity_are_of_what_did_not_fail(monkeypatch, enter):
    def copies(denoiser, constraint, seeds, steps):
        if len(seeds) == 1:
            raise DivergenceError("too far", [])
        return mnist.digits("held-out")[0][FIRST : FIRST + len(seeds)]

    monkeypatch.setattr(entries, "BATCH", 4)
    enter(copies)
    config = Contest(digits=5, again=2)
    found = twice(Entry("half", "tried", "authors", {}, 1), config)
    truth = true_features(5, "cpu")
    assert found["kernel_distance"].tolist() == list(kernel_distance(truth[:4], truth))
    assert found["diversity"].tolist() == [0, 0]
    config = Contest(digits=5, again=5)
    found = twice(Entry("half", "tried", "authors", {}, 1), config)
    assert np.isnan(found["diversity"]).tolist() == [False] * 4 + [True]
    assert np.isnan(found["psnr"]).tolist() == [False] * 4 + [True]
    assert "features" not in found


def test_a_search_that_ends_at_an_edge_is_told():
    grids = {"a": (3.0, 1.0, 10.0), "eta": (0.0, 1.0), "iterations": (1, 3), "c": (5,)}
    tried = contestants.peer(None, grids)
    assert at_edge(tried, {"a": 3.0, "eta": 1.0, "iterations": 1, "c": 5}) == ""
    assert at_edge(tried, {"a": 10.0, "eta": 0.0, "iterations": 3, "c": 5}) == "a, iterations"


@pytest.mark.parametrize("task", ["half", "super-resolution", "blur", "half, noise", "quantised"])
def test_images_of_every_method_are_projected_where_y_has_no_noise(enter, task):
    def gray(denoiser, problem, seeds, steps):
        return torch.zeros(len(seeds), *denoiser.shape)

    enter(gray)
    found = execute(Entry(task, "tried", "authors", {}, 1), Contest(), OTHERS, 3, 0)
    wanted, *_ = problem(task, OTHERS, 3, 0)
    assert (found["residual"] > 0.01).all()  # of what it returned
    left = wanted.residual(torch.from_numpy(found["images"]).float())
    assert (float(left.max()) < 0.1) == (task in ("half", "super-resolution"))


def test_in_latents_a_run_gets_decoded_problems_and_returns_latents(enter):
    def encoded(denoiser, constraint, seeds, steps):
        assert isinstance(constraint, Decoded)
        assert constraint.constraint.y.shape == (len(seeds), 1, 32, 32)
        return constraint.encode(mnist.digits("held-out")[0][FIRST : FIRST + len(seeds)])

    enter(encoded)
    config = Contest(model="mnist-latent")
    found = execute(Entry("half", "tried", "authors", {}, 1), config, FIRST, 2, 0)
    assert found["images"].shape == (2, 1, 32, 32)
    assert found["psnr"].min() > 20  # the autoencoder's error
