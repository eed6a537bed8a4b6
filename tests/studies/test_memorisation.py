"""Memorisation: distances, maps and spectra of cases that are known."""

import numpy as np
import pytest
import torch

from jacobian_lab import DiscreteSchedule, InputError
from studies.claims import ranks
from studies.claims.memorisation import (
    STUDY,
    Memorisation,
    compute,
    half_memorised,
    known_masses,
    nearness,
    spectra_at,
)
from studies.claims.memorisation_table import areas, findings, flat_directions, largest_gap
from studies.claims.point_masses import PointMasses
from studies.claims.small_models import SMALL, filling
from studies.frame.findings import Standing
from studies.frame.study import Pieces, figures, labelled


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few resamples."""
    monkeypatch.setattr(ranks, "DRAWS", 100)


def images(count, seed=0):
    return torch.rand(count, *SMALL, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_copies_of_training_images_are_near_and_others_are_not():
    training, others = images(30), images(40, seed=1)
    copied = nearness(training[:6] + 1e-4, training, others)
    assert copied["ratio"].max() < 1e-2
    assert copied["of_training"].all()
    fair = nearness(images(300, seed=2), training, others)
    assert 0.3 < fair["of_training"].mean() < 0.7
    assert fair["ratio"].min() > 0.8


def test_the_denoiser_that_memorises_has_the_ideal_spectrum():
    training = images(1, seed=3).double() + 0.1 * images(8).double()
    ideal = PointMasses(training, DiscreteSchedule.linear())
    found = spectra_at(Memorisation(), ideal.denoiser(), ideal, training[0], 150, 0)
    np.testing.assert_allclose(found["spectrum"], found["ideal_spectrum"], atol=1e-10)
    assert flat_directions(found["spectrum"]) == (found["ideal_spectrum"] > 0.5).sum() > 0


def test_the_closed_form_and_the_products_agree():
    found = known_masses(images(12).double(), Memorisation(times=(100, 500, 900)))
    assert found["masses_error"].max() < 1e-9
    assert found["masses_rank"].max() == 11
    assert found["masses_flat"][0] == 0


def test_half_memorised_digits_have_few_upper_halves():
    given = images(35)
    found = half_memorised(given)
    assert found.shape == given.shape
    assert len(found[:, :, :8].flatten(1).unique(dim=0)) == 10
    assert torch.equal(found[:, :, 8:], given[:, :, 8:])
    assert len(filling(images(10), 64)) == 70


def test_the_area_is_one_where_the_upper_half_collapses():
    diagonal = np.ones((1, 2, 16, 16))
    diagonal[..., :8, :] = 0.1
    diagonal[..., 0, :] = diagonal[..., 15, :] = 0.05  # never varies
    whole = np.where(diagonal == 0.05, 0.05, 1.0)
    arrays = {"half_diagonal": diagonal, "whole_diagonal": whole}
    assert areas(arrays, True)[0, 0] == pytest.approx((7 * 8 + 8 / 2) / 64)
    alone = areas(arrays, False)[0, 0]
    assert alone == pytest.approx((7 * 7 + 7 + 1 / 2) / 64)


def test_the_gap_is_found():
    assert largest_gap(np.array([[0.9, 0.8, 0.2, 0.1]])) == (pytest.approx(0.6), 2)


def made():
    """Arrays in which the first denoiser memorises, and the last does not."""
    rng = np.random.default_rng(0)
    spectrum = 0.1 * rng.random((2, 3, 6, 256))
    for k, counts in enumerate(((1, 4, 2), (40, 20, 3))):
        for m, count in enumerate(counts):
            for p in range(6):
                spectrum[k, m, p, : count + p % 2] = 0.9
    whole = rng.random((3, 6, 16, 16))
    half = whole.copy()
    half[..., :8, :] *= 0.2
    known = known_masses(images(5).double(), Memorisation(times=(100, 300, 700)))
    ratio = np.stack([rng.uniform(0.1, 0.2, 20), rng.uniform(0.9, 1, 20)])
    return known | {
        "subject": np.array("made up"),
        "size": np.array([10, 1000]),
        "time": np.array([100, 300, 700]),
        "ratio": ratio,
        "of_training": ratio < 0.5,
        "spectrum": -np.sort(-spectrum, axis=-1),
        "ideal_spectrum": np.zeros_like(spectrum),
        "half_sample": rng.random((6, 16, 16)),
        "half_diagonal": half,
        "whole_diagonal": whole,
    }


def test_findings_hold_where_they_should():
    found = findings(made())
    assert all(f.passed for f in found)
    first, of_two_models, *others = [f.verdict for f in found]
    assert {first, *others} == {Standing.HOLDS}
    assert of_two_models == Standing.OPEN  # samples of one model are no independent ones
    of_each = ("ratio", "of_training", "spectrum", "size", "ideal_spectrum")
    more = made() | {name: np.repeat(made()[name], 5, axis=0) for name in of_each}
    assert findings(more)[1].verdict == Standing.HOLDS
    arrays = made()
    arrays["spectrum"] = arrays["spectrum"][::-1]
    arrays["half_diagonal"], arrays["whole_diagonal"] = (
        arrays["whole_diagonal"],
        arrays["half_diagonal"],
    )
    sharper, _, where, better, *_ = findings(arrays)
    assert {f.verdict for f in (sharper, where, better)} == {Standing.FAILS}


def test_arrays_are_described_and_drawn():
    arrays = made()
    assert set(labelled(STUDY, arrays, {"code": {}}).variables) == set(arrays)
    assert len(STUDY.table(arrays)) == 2 * 3 + 2 * 3
    assert len(figures(STUDY, arrays, ["png"])["png"]) > 10_000


def test_sizes_beyond_the_digits_at_hand_are_not_compared_with_themselves(monkeypatch, tmp_path):
    few = torch.zeros(20, 1, 16, 16), torch.zeros(20, dtype=torch.int64)
    monkeypatch.setattr(Memorisation, "digits", lambda _: few)
    with pytest.raises(InputError, match="--sizes 20 30 are one size, since 20 training digits"):
        compute(Memorisation(sizes=(20, 30)), Pieces(tmp_path))


@pytest.mark.slow
def test_memorisation(run):
    words = ("--updates", "20", "--sizes", "10", "4000", "--samples", "8", "--tested", "2")
    data, rows, _ = run("memorisation", *words, "--steps", "2", "--times", "100", "500")
    assert data["spectrum"].shape == (2, 2, 2, 256)
    assert len(rows) == 8
