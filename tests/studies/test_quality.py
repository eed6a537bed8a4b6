"""Quality against leading eigenvalues: the toy is held against its closed form, and findings say
what arrays say.
"""

import csv

import numpy as np
import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule
from studies.claims import quality, ranks
from studies.claims.quality import STUDY, Quality, leading_vectors, spectrum_at, toy, trainings
from studies.claims.quality_table import correlation_of, findings, model_of
from studies.claims.small_models import SMALL
from studies.frame.findings import Standing
from studies.frame.study import Pieces, figures, labelled


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few resamples and one training of the toy."""
    monkeypatch.setattr(ranks, "DRAWS", 100)
    monkeypatch.setattr(quality, "TOY_SEEDS", 1)
    monkeypatch.setattr(quality, "TOY_SAMPLES", 50)


class Matrix(torch.nn.Module):
    """x_0 is predicted as A x: J is A at all times."""

    def __init__(self, A):
        super().__init__()
        self.A = torch.nn.Parameter(A)

    def forward(self, x, t):
        return (x.flatten(1) @ self.A.T).reshape(x.shape)


def test_the_spectrum_is_that_of_the_matrix():
    A = 0.1 * torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).double()
    denoiser = Denoiser(Matrix(A), DiscreteSchedule.linear(), "sample", SMALL).eval()
    leading, symmetric, skew = spectrum_at(denoiser, torch.zeros(1, *SMALL).double(), 300)
    assert leading == pytest.approx(torch.linalg.eigvals(A).abs().max().item())
    assert symmetric == pytest.approx(torch.linalg.eigvalsh((A + A.T) / 2)[-1].item())
    assert skew == pytest.approx(((A - A.T).norm() / (A + A.T).norm()).item())


def test_the_eigenvectors_drawn_are_the_leading_ones_of_the_symmetric_part():
    A = 0.1 * torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).double()
    denoiser = Denoiser(Matrix(A), DiscreteSchedule.linear(), "sample", SMALL).eval()
    values, vectors = leading_vectors(denoiser, torch.zeros(1, *SMALL).double(), 300)
    S = ((A + A.T) / 2).numpy()
    assert values == pytest.approx(np.linalg.eigvalsh(S)[:-5:-1])
    assert np.linalg.norm(S @ vectors.T - vectors.T * values) < 1e-12
    assert (vectors.max(1) == np.abs(vectors).max(1)).all()


def made(slope, seed=0):
    """Arrays of a study in which the leading eigenvalue is `slope` times the quality."""
    rng = np.random.default_rng(seed)
    plans = trainings(Quality())
    models, times, points = len(plans), 3, 5
    frechet = np.linspace(1, 4, models)
    leading = 10 - slope * np.broadcast_to(frechet[:, None, None], (models, times, points))
    leading = leading + 1e-3 * rng.standard_normal(leading.shape)
    exact = np.ones((times, 20))
    growth = np.array([0.5, 0.8, 0.9, 0.99])[None, :, None, None] * exact
    toys = np.repeat(growth, 3, axis=0)
    return {
        "subject": np.array("made up"),
        "network": np.array([p.network for p in plans]),
        "loss": np.array([p.loss for p in plans]),
        "updates": np.array([p.recipe.updates for p in plans]),
        "time": np.array([300, 500, 700]),
        "frechet": frechet,
        "real_frechet": np.array(0.5),
        "leading": leading,
        "leading_symmetric": leading,
        "asymmetry": 0.1 + 0.01 * rng.random(leading.shape),
        "error": np.ones_like(leading),
        "drawn_value": np.ones((models, 4)),
        "vector": rng.standard_normal((models, 4, 256)),
        "length": np.array(Quality().lengths),
        "toy_error": (1 - toys) + 0.1,
        "toy_leading": toys + 1e-4 * rng.random(toys.shape),
        "toy_exact": exact,
        "toy_products": exact + 1e-12,
    }


@pytest.mark.parametrize(("slope", "standing"), [(1, Standing.HOLDS), (-1, Standing.FAILS)])
def test_findings_say_whether_better_is_larger(slope, standing):
    arrays = made(slope)
    better, *regularised, approach = findings(arrays)
    assert better.value[0] == pytest.approx(slope)
    assert better.verdict is standing
    assert all(f.passed for f in (better, *regularised, approach))
    assert approach.verdict is Standing.HOLDS
    assert approach.value[0] == pytest.approx(0.5, abs=1e-3)
    towards, plain = model_of(arrays, "towards")
    expected = arrays["leading"][towards].mean() / arrays["leading"][plain].mean()
    assert regularised[0].value[0] == pytest.approx(expected)
    skew, error = regularised[3:]
    symmetric, plain = model_of(arrays, "symmetric")
    expected = arrays["asymmetry"][symmetric].mean() / arrays["asymmetry"][plain].mean()
    assert skew.value[0] == pytest.approx(expected)
    assert error.value == pytest.approx((1, 1, 1))


def test_an_oracle_that_is_missed_is_told():
    arrays = made(1)
    arrays["toy_products"] = arrays["toy_exact"] * 1.01
    assert not findings(arrays)[0].passed
    few = correlation_of(arrays, np.array([0, 3, 5]), np.array([0, 0, 1]))
    assert few == pytest.approx(1)


def test_arrays_are_described_and_drawn():
    arrays = made(1)
    data = labelled(STUDY, arrays, {"code": {}})
    assert set(data.variables) == set(arrays)
    assert len(STUDY.table(arrays)) == 14 * 3 + 4 * 3
    assert len(figures(STUDY, arrays, ["png"])["png"]) > 10_000


def test_the_toy_stands_beside_its_closed_form(tmp_path):
    found = toy(Quality(updates=108, times=(300,)), Pieces(tmp_path))
    np.testing.assert_allclose(found["toy_products"], found["toy_exact"], rtol=1e-10)
    errors = found["toy_error"].mean((0, 2, 3))
    assert errors[-1] < errors[0] / 2


@pytest.mark.slow
def test_quality(run, tmp_path):
    words = ("--updates", "27", "--tested", "2", "--samples", "40", "--steps", "2")
    data, _, _ = run("quality", *words, "--times", "500")
    assert data["leading"].shape == (14, 1, 2)
    assert np.isfinite(data["frechet"]).all()
    told = list(csv.DictReader((tmp_path / "run" / "findings.csv").read_text().splitlines()))
    assert len(told) == 7
    assert all(row["oracle"].startswith("passed") for row in told[:6])
