"""The skew part of errors, where it is known."""

import numpy as np
import pytest
import torch

from jacobian_lab import Denoiser
from studies.claims.perceptron import noisy_samples
from studies.claims.skewness import (
    SIZE,
    STUDY,
    Skewness,
    between,
    errors_at,
    random_mixture,
)
from studies.claims.skewness_table import findings
from studies.frame.findings import Standing
from studies.frame.study import figures, labelled


class Displaced(torch.nn.Module):
    """The exact mean and an error B x."""

    def __init__(self, oracle, B):
        super().__init__()
        self.exact, self.B = oracle.denoiser(), B

    def forward(self, x, t):
        return self.exact(x, t) + (x.flatten(1) @ self.B.T).reshape(x.shape)


@pytest.fixture(scope="module")
def displaced():
    oracle = random_mixture()
    B = 0.1 * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(4)).double()
    denoiser = Denoiser(Displaced(oracle, B), oracle.schedule, "sample", oracle.shape)
    return oracle, denoiser.eval(), B


def test_the_parts_of_a_known_error(displaced):
    oracle, denoiser, B = displaced
    x = noisy_samples(oracle, 500, 7, seed=0)
    found = errors_at(oracle, denoiser, x, 500, oracle.jacobian(x, 500).numpy())
    skew, symmetric = ((B - B.T) / 2).square().sum(), ((B + B.T) / 2).square().sum()
    np.testing.assert_allclose(found["skew_error"], float(skew), rtol=1e-8)
    np.testing.assert_allclose(found["symmetric_error"], float(symmetric), rtol=1e-8)
    np.testing.assert_allclose(found["jacobian_error"], float(B.square().sum()), rtol=1e-8)
    np.testing.assert_allclose(found["error"], (x.flatten(1) @ B.T).square().sum(1), rtol=1e-8)
    least = 1 - found["no_solenoidal"].sum() / found["tried"].sum()
    most = found["no_gradient"].sum() / found["tried"].sum()
    assert 0.1 < least < most < 0.7


def test_asymmetry_between_two_matrices():
    A, B = np.random.default_rng(0).standard_normal((2, 6, 6))
    assert between(A, A) == np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T)
    assert between(A, A.T) == 0
    assert between(A, B) != between(A, A)


def made(error=0.5):
    """Arrays in which regularised denoisers have `error` times the error of the plain one."""
    rng = np.random.default_rng(0)
    losses, shape = list(Skewness().losses), (4, 2, 3, 30)
    factor = np.array([1, error, error, error])[:, None, None, None]
    whole = factor * rng.uniform(0.9, 1.1, shape)
    return {
        "subject": np.array("made up"),
        "loss": np.array(losses),
        "time": np.array([100, 300, 500]),
        "error": whole,
        "jacobian_error": whole,
        "symmetric_error": 0.6 * whole,
        "skew_error": 0.4 * whole,
        "no_gradient": 0.35 * whole,
        "no_solenoidal": 0.7 * whole,
        "tried": whole,
        "product_error": np.array(1e-15),
        "size": np.array(8),
        "model_time": np.array([300, 500, 700]),
        "same": np.full((3, 4), 0.2) + 1e-3 * rng.random((3, 4)),
        "shifted": np.array([[1.01], [1.02], [1.2]]) * np.full((3, 4), 0.2),
        "leading_same": np.ones((3, 4)),
        "leading_shifted": 1.02 + 1e-3 * rng.random((3, 4)),
    }


def test_findings_say_what_the_arrays_say():
    arrays = made()
    arrays["shifted"] = arrays["same"] * np.array([[1.01], [1.02], [1.2]])
    found = findings(arrays)
    assert all(f.passed for f in found)
    holds, fails = Standing.HOLDS, Standing.FAILS
    assert [f.verdict for f in found] == [holds] * 7 + [fails]
    assert found[0].value[0] == pytest.approx(0.3)
    assert found[1].value[0] == pytest.approx(0.4)
    assert found[2].value[0] == pytest.approx(0.5, rel=0.05)
    assert [f.verdict for f in findings(made(error=2))[2:5]] == [fails] * 3
    arrays["symmetric_error"] = 0.7 * arrays["jacobian_error"]
    assert not findings(arrays)[0].passed


def test_arrays_are_described_and_drawn():
    arrays = made()
    assert set(labelled(STUDY, arrays, {"code": {}}).variables) == set(arrays)
    assert len(STUDY.table(arrays)) == 4 * 3 + 3
    assert len(figures(STUDY, arrays, ["png"])["png"]) > 10_000


@pytest.mark.slow
def test_skewness(run):
    words = ("--updates", "30", "--trainings", "2", "--samples", "20", "--digits", "2")
    data, rows, _ = run("skewness", *words, "--times", "500", "--model-times", "300")
    assert data["error"].shape == (4, 2, 1, 20)
    assert len(rows) == 5
