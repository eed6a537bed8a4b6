"""The exact posterior of a linear observation, and the study that compares samplers with it."""

import csv

import numpy as np
import pytest
import torch

from jacobian_lab import DiscreteSchedule, InputError
from jacobian_lab.sampling.sampler import seed_of
from studies.sampling import (
    posterior,
    posterior_plot,
)
from studies.sampling import (
    random_curves as curves,
)

from conftest import SCHEDULES, SHAPE, call, make_gaussian, make_mixture, relative, stored

LINEAR = DiscreteSchedule.linear()


def observed(oracle, rows, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 12, generator=g, dtype=torch.float64), torch.randn(
        rows, generator=g, dtype=torch.float64
    )


def test_a_noisy_sample_as_observation_gives_the_denoisers_posterior(oracle_at):
    """With A = alpha_t I and sigma = sigma_t the observation is x_t."""
    oracle, x_t, t = oracle_at
    alpha_t, sigma_t = (float(c) for c in oracle.schedule(t))
    left = oracle.conditioned(alpha_t * torch.eye(12, dtype=torch.float64), x_t.flatten(), sigma_t)
    weights, means, _ = oracle.posterior(x_t.flatten(1), t)
    assert relative(left.log_weights.exp(), weights[0]) < 1e-9
    assert relative(left.means, means[0]) < 1e-9
    m = left.log_weights.exp() @ left.means
    within = (left.eigenvectors * left.eigenvalues[:, None]) @ left.eigenvectors.mT
    covariance = torch.einsum(
        "k,kij->ij",
        left.log_weights.exp(),
        within + torch.einsum("ki,kj->kij", left.means - m, left.means - m),
    )
    assert relative(covariance, oracle.covariance(x_t, t)[0]) < 1e-8


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_conditioning_commutes_with_the_diffusion(sigma):
    """E[x_0 | x_t, y] by conditioning on y first, or by stacking y and x_t into one observation."""
    oracle = make_gaussian(LINEAR)
    A, y = observed(oracle, 4)
    alpha_t, sigma_t = (float(c) for c in LINEAR(300))
    x_t = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    S = (oracle.eigenvectors[0] * oracle.eigenvalues[0]) @ oracle.eigenvectors[0].T
    both = torch.cat([A, alpha_t * torch.eye(12, dtype=torch.float64)])
    noise = torch.diag(torch.tensor([sigma**2] * 4 + [sigma_t**2] * 12, dtype=torch.float64))
    gain = S @ both.T @ torch.linalg.inv(both @ S @ both.T + noise)
    expected = oracle.means[0] + gain @ (torch.cat([y, x_t.flatten()]) - both @ oracle.means[0])
    assert relative(oracle.conditioned(A, y, sigma).mean(x_t, 300).flatten(), expected) < 1e-8


def test_an_exact_observation_holds_for_every_sample():
    oracle = make_gaussian(LINEAR)
    A, y = observed(oracle, 4)
    x = oracle.conditioned(A, y).sample(10, torch.Generator().manual_seed(0)).flatten(1)
    assert (x @ A.T - y).abs().max() < 1e-6
    assert x.std(0).min() > 0.01


def test_evidence_that_rules_a_component_out_leaves_it_the_smallest_weight_there_is():
    oracle = make_mixture(LINEAR)
    # along which the third component, of rank 2, does not vary
    outside = oracle.eigenvectors[2, :, 0]
    left = oracle.conditioned(outside[None], outside[None] @ oracle.means[2] + 1, 1e-3)
    assert 0 < float(left.log_weights[2].exp()) < 1e-300
    assert float(left.log_weights.exp().sum()) == pytest.approx(1)


def test_impossible_observations_are_refused():
    oracle = make_gaussian(SCHEDULES["flow"][0])
    A, y = observed(oracle, 3)
    with pytest.raises(InputError, match=r"expected \(m, 12\) and \(m,\)"):
        oracle.conditioned(A, y[:2])
    with pytest.raises(
        InputError, match=r"singular for component 0 and sigma = 0.0: leave out redundant rows"
    ):
        oracle.conditioned(torch.cat([A, torch.zeros(1, 12)]), torch.cat([y, y[:1]]))


def test_the_study_tabulates_every_direction_and_exact_newton_meets_the_constraint(
    monkeypatch, capsys, tmp_path
):
    ways = (
        posterior.EXACT_DENOISER,
        posterior.FREE,
        posterior.EXACT,
        "fair(5)",
        *posterior_plot.SHOWN,
    )
    monkeypatch.setattr(posterior, "WAYS", {way: posterior.WAYS[way] for way in ways})
    status, _, err = call(
        monkeypatch,
        capsys,
        "posterior",
        "--samples",
        "40",
        "--exact-samples",
        "8",
        "--curves",
        "1",
        "--steps",
        "4",
        "--newton-steps",
        "2",
        "--out",
        tmp_path / "run",
    )
    assert status == 0, err
    rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2 * len(set(ways))
    found = {(row["prior"], row["observation"], row["sampler"], row["eta"]): row for row in rows}
    exact = found["Gaussian", "half", "J^+ e, step 1", "0"]
    assert float(exact["largest_residual_after_the_steps_of_any_time"]) < 1e-6
    assert int(exact["passes"]) == 4 * (2 + curves.N)
    assert float(found["Gaussian", "half", posterior.FREE, "0"]["mean_error"]) > 1
    assert float(found["Gaussian", "half", posterior.EXACT_DENOISER, "0"]["mean_error"]) < 0.5
    fair = found["mixture", "noisy means", "fair(5)", "1"]
    # all four numbers that are observed are met by four products
    assert (fair["passes"], fair["backward_passes"]) == (str(4 * (1 + 4)), "0")
    for name in ("mean_error", "covariance_error", "weights_error", "coverage_50"):
        mmps = float(found["mixture", "noisy means", posterior.MMPS, "1"][name])
        assert float(fair[name]) == pytest.approx(mmps, rel=1e-2)
    true = found["Gaussian", "half", posterior.EXACT, "1"]
    assert float(true["mean_error_low"]) < float(true["mean_error_high"])
    assert float(true["coverage_90_low"]) < float(true["coverage_90"])
    assert found["Gaussian", "half", posterior.MMPS, "1"]["mean_error_low"] == ""
    data = stored(tmp_path / "run")
    assert np.isfinite(data["score"]).all()
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--samples", "3"), "--samples and --exact-samples must be at least 8"),
        (("--steps", "0"), "steps must lie from 1 to 1000"),
        (("--curves", "0"), "--curves and --newton-steps at least 1"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, words, message):
    status, _, err = call(monkeypatch, capsys, "posterior", *words)
    assert status == 2
    assert message in err


def test_help_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "posterior", "--help")
    assert status == 0
    assert "Example: jacobian-lab posterior" in " ".join(out.split())


@pytest.mark.parametrize("observation", curves.OBSERVATIONS)
def test_on_the_mixture_fair_samples_are_those_of_mmps(observation):
    """Step by step, with as many products as numbers are observed."""
    problem = curves.make_problem("mixture", observation, 0)
    config = posterior.Posterior(steps=10)
    seeds = [seed_of(0, k) for k in range(8)]
    drawn = {
        way: posterior.sample_posterior(problem, way, 1.0, seeds, config)
        for way in ("fair(10)", posterior.MMPS)
    }
    assert relative(drawn["fair(10)"][0], drawn[posterior.MMPS][0]) < 1e-3
    count = min(10, len(problem.y))
    assert drawn["fair(10)"][1]["passes"].tolist() == [10 * (1 + count), 0]


@pytest.mark.slow
def test_far_from_the_data_right_products_are_not_refused_by_chance():
    """`J^+ e` leaves the data; there differences of a mixture are off by 7e-9, and two neighbouring
    steps agreed to 1e-10 by chance.
    """
    problem = curves.make_problem("mixture", "half", seed_of(0, 0))
    seeds = [seed_of(0, 0, k) for k in range(20)]
    way = "J^+ e, rcond 0.1, step 1"
    x, took = posterior.sample_posterior(problem, way, 0.0, seeds, posterior.Posterior(steps=40))
    assert x.isfinite().all()
    assert took["residual"] < 1e-12
