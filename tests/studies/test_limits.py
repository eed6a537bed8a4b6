"""The limits: those of the contest's digits come first, and are scores of the images drawn."""

import numpy as np
import pytest
import torch

from mnist.observer import load_observer
from mnist.problems import problem
from studies.contest import (
    limits,
)
from studies.contest.limits import limit_rows, measure_limits


def test_limits_are_measured_on_the_contests_digits_first(monkeypatch):
    monkeypatch.setattr(limits, "HELD_OUT", 40)
    monkeypatch.setattr(limits, "BATCH", 20)
    found = measure_limits("random", 2000, 3, "cpu")
    wanted, images, labels = problem("random", 2000, 30, 3)
    seen = load_observer().look("random", wanted)
    named = (seen.logits.argmax(1) == labels).numpy()
    np.testing.assert_array_equal(found["agreement"][:30], named)
    error = (seen.images.clamp(-1, 1) - images).square().mean((1, 2, 3))
    np.testing.assert_allclose(found["psnr"][:30], 10 * torch.log10(4 / error), rtol=1e-4)
    np.testing.assert_allclose(found["images"][:30], seen.images.clamp(-1, 1), atol=1e-3)
    assert found["psnr"].shape == (40,)


def test_rows_are_of_few_digits_and_of_all():
    right = np.array([True] * 9 + [False] + [True] * 90)
    few, many = limit_rows("half", right, np.arange(100.0), 10)
    assert (few["method"], many["method"]) == ("limit", "limit, 100 digits")
    assert (few["agreement"], many["agreement"]) == (0.9, 0.99)
    assert few["agreement_high"] - few["agreement_low"] > 0.3
    assert (few["psnr"], many["psnr"]) == pytest.approx((4.5, 49.5))
    assert few["psnr_low"] < 4.5 < few["psnr_high"]
