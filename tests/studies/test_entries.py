"""Runs of the contest: they do not depend on how many digits there are, may fail, and are searched
on other digits.
"""

import json

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.sampler import seed_of
from mnist.problems import problem
from studies.contest import (
    entries,
    tracks,
)
from studies.contest.entries import (
    FIRST,
    OTHERS,
    Entry,
    at_edge,
    execute,
    kernel_distance,
    price,
    steps_within,
    true_features,
    try_parameters,
    twice,
)
from studies.contest.peers import Passes, Peer
from studies.contest.rules import Contest


def peer(run, search=None):
    """Return a contestant of no parameters but those of its search."""
    defaults = {name: values[0] for name, values in (search or {}).items()}
    return Peer("tried", "none", run, defaults, search or {}, Passes(1), 1, "nobody")


@pytest.fixture
def enter(monkeypatch):
    """Return a function that makes one method the only contestant, on every track."""

    def only(run, search=None):
        contestant = peer(run, search)
        for module in (tracks, entries):
            monkeypatch.setattr(module, "contestants", lambda model: (contestant,))
        return contestant

    return only


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
    assert np.isnan(found["psnr"]).tolist() == [False] * 4 + [True]
    assert "features" not in found


def test_parameters_are_tried_on_other_digits_with_half_of_the_largest_budget(enter):
    seen = []

    def scaled(denoiser, constraint, seeds, steps, scale):
        for t in denoiser.schedule.times(steps):
            D = denoiser(torch.zeros(len(seeds), *denoiser.shape), t)
        seen.append((constraint.y, steps))
        return scale * mnist.digits("held-out")[0][OTHERS + 2 : OTHERS + 2 + len(seeds)] + 0 * D

    enter(scaled, {"scale": (1.0, 0.5, -1.0)})
    config, part = Contest(budgets=(5, 20)), range(2, 5)
    rows = [
        json.loads(str(try_parameters("half", "tried", {"scale": scale}, config, part)["row"]))
        for scale in (1.0, -1.0)
    ]
    assert torch.equal(seen[3][0], problem("half", OTHERS + 2, 3, 0)[0].y)
    price = [(2, 4), (4, 4), (2, 8)]
    assert [(len(y), steps) for y, steps in seen] == 2 * [*price, (3, 10)]
    assert (rows[0]["step"], rows[0]["once"]) == (1, 0)
    assert rows[0]["doubt"] < rows[1]["doubt"]


@pytest.mark.parametrize(
    ("passes", "expected"),
    [
        (lambda n: 2 * n - 1, (2, -1)),  # DInG
        (lambda n: 2 * n + 3, (2, 3)),  # a last pass, and a check
        (lambda n: min(n, 3), (0.75, 0)),  # stops early
    ],
)
def test_the_price_of_a_step_is_apart_from_what_a_run_costs_once(enter, passes, expected):
    def spends(denoiser, constraint, seeds, steps):
        for _ in range(passes(steps)):
            D = denoiser(torch.zeros(len(seeds), *denoiser.shape), 500)
        return D

    enter(spends)
    step, once = price(Entry("half", "tried", "searched", {}, 1), Contest())
    assert (step, once) == pytest.approx(expected)
    for budget in (25, 100):
        if expected[0] == 2:
            assert abs(passes(steps_within(budget, step, once)) - budget) <= 1


def test_a_check_of_some_samples_is_priced_on_ten_digits(enter):
    def checks(denoiser, constraint, seeds, steps):
        for _ in range(steps):
            D = denoiser(torch.zeros(len(seeds), *denoiser.shape), 500)
            denoiser(torch.zeros(min(3, len(seeds)), *denoiser.shape), 500)
        return D

    enter(checks)
    entry = Entry("half", "tried", "searched", {}, 1)
    assert price(entry, Contest()) == pytest.approx((1.3, 0))


def test_a_search_that_ends_at_an_edge_is_told():
    grids = {"a": (3.0, 1.0, 10.0), "b": (0.0, 1.0), "c": (1, 2, 4)}
    tried = peer(None, grids)
    assert at_edge(tried, {"a": 3.0, "b": 1.0, "c": 2}) == ""
    assert at_edge(tried, {"a": 10.0, "b": 1.0, "c": 1}) == "a, c"


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
