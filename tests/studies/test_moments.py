"""Moments along a component, and the density: on three Gaussians, and on digits."""

import numpy as np
import pytest

from studies.claims.moments import Mixture, case, moments_along, posterior_along, three_gaussians
from studies.claims.moments_table import (
    WANTED,
    findings,
    is_bimodal,
    kurtosis_errors,
    relative_errors,
    table,
    within_stated,
)
from studies.frame.findings import Standing


def test_a_mixture_on_the_line_has_the_moments_of_its_density():
    mixture = Mixture(np.array([0.7, 0.3]), np.array([-1.0, 2.0]), np.array([0.5, 0.1]))
    y = np.linspace(-12, 12, 40001)
    p = mixture.density(y)
    mean = np.trapezoid(y * p, y)
    central = [np.trapezoid((y - mean) ** k * p, y) for k in (2, 3, 4)]
    np.testing.assert_allclose(mixture.moments(), [mean, *central], rtol=1e-8)
    assert np.trapezoid(p, y) == pytest.approx(1)


def test_moments_of_three_gaussians_are_those_in_closed_form():
    cases = [case(550, k) for k in range(6)]
    found = {f"oracle_{name}": np.stack([c[name] for c in cases]) for name in cases[0]}
    assert relative_errors(found, "oracle_").max() < 1e-6 < WANTED
    assert within_stated(found, "oracle_").all()
    assert is_bimodal(found["oracle_exact_density"]).any()


def test_the_posterior_along_a_direction_has_the_oracles_variance():
    oracle = three_gaussians()
    x_t = oracle.means[1].reshape(1, 1, 1, 16) * 0.5
    v = np.random.default_rng(0).standard_normal(16)
    v /= np.linalg.norm(v)
    truth = posterior_along(oracle, x_t, 500, v).moments()
    covariance = oracle.covariance(x_t, 500)[0].numpy()
    assert truth[1] == pytest.approx(v @ covariance @ v)
    # one sample at the mean of a flatter posterior is less likely than under the Gaussian
    found = moments_along(oracle.denoiser(), x_t, 500, v, float(truth[0]))
    assert found["clean"] == pytest.approx(0, abs=1e-9)
    assert np.isnan(found["exact_moments"]).all()


def test_findings_of_three_gaussians_taken_for_a_model():
    cases = [case(550, k) for k in range(8)] * 10
    stacked = {name: np.stack([c[name] for c in cases]) for name in cases[0]}
    arrays = {f"oracle_{name}": values[None] for name, values in stacked.items()}
    arrays |= {name: np.stack([values[None]] * 2) for name, values in stacked.items()}
    arrays["possible"] = np.ones((2, 1, 80), dtype=bool)
    arrays |= {"time": np.array([550]), "z": np.linspace(-5, 5, 401)}
    arrays |= {"oracle_time": np.array([550]), "source": np.array(["model", "ten Gaussians"])}
    arrays["digit"] = np.arange(80)
    exact, possible, density, two = findings(arrays)
    assert all(finding.passed for finding in (exact, possible, density, two))
    assert [f.verdict for f in (exact, possible, density)] == [Standing.HOLDS] * 3
    assert two.value[0] == (stacked["modes"] > 1).mean() > 0
    assert kurtosis_errors(stacked["errors"], stacked["moments"]).max() < 1e-6
    rows = table(arrays | {"clean": np.ones((2, 1, 80))})
    assert {row["source"] for row in rows} == {"model", "ten Gaussians", "three Gaussians"}
    assert max(row["mean"] for row in rows if row["quantity"] == "no distribution") == 0
    widths = []
    for digits in (np.arange(80), np.arange(80) // 2):
        of = arrays | {"clean": np.ones((2, 1, 80)), "digit": digits}
        row = next(row for row in table(of) if row["quantity"] == "|skewness|")
        widths.append(row["high"] - row["low"])
    assert widths[0] != pytest.approx(widths[1], rel=1e-3)
    arrays["possible"][0, 0, :60] = False
    assert findings(arrays)[1].verdict is Standing.FAILS


@pytest.mark.slow
def test_the_command_finds_the_oracles_moments_on_digits(run):
    data, rows, _ = run("moments", "--digits", "2", "--times", "500")
    assert within_stated(
        {k: v[1] for k, v in data.items() if k in ("moments", "errors", "exact_moments")}
    ).all()
    assert {row["source"] for row in rows} == {"model", "ten Gaussians", "three Gaussians"}
    assert np.isfinite(data["gain"]).all()
