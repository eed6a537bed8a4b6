"""What a network's output means: the five predictions, EDM's preconditioning, learned variances."""

import math

import pytest
import torch
from torch import nn

from jacobian_lab import (
    EDM,
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    RectifiedFlow,
    VarianceExploding,
)
from jacobian_lab.diffusion.prediction import coefficients

from conftest import SHAPE, make_mixture, relative


def raw(kind, x0, noise, a, s):
    return {
        "epsilon": noise,
        "v": a * noise - s * x0,
        "sample": x0,
        "flow": noise - x0,
        "score": -noise / s,
    }[kind]


@pytest.mark.parametrize("kind", ["epsilon", "v", "sample", "flow", "score"])
@pytest.mark.parametrize(
    ("schedule", "t"),
    [(DiscreteSchedule.linear(), 300), (RectifiedFlow(), 0.3), (VarianceExploding(), 7.0)],
)
def test_coefficients_give_back_the_clean_sample(kind, schedule, t):
    x0, noise = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, s = schedule(t)
    c_x, c_out = coefficients(kind, a, s)
    F = raw(kind, x0, noise, a, s)
    assert relative(c_x * (a * x0 + s * noise) + c_out * F, x0) < 1e-12


def test_a_score_network_gives_tweedies_mean():
    oracle = make_mixture(VarianceExploding(20.0))
    x = oracle.sample(2, torch.Generator().manual_seed(0)).requires_grad_()
    D = oracle.mean(x, 1.5)

    def score(x, t):
        return (oracle.mean(x, float(t[0])) - x) / t.reshape(-1, 1, 1, 1) ** 2

    denoiser = Denoiser(score, oracle.schedule, "score", SHAPE)
    assert relative(denoiser(x, 1.5), D) < 1e-12
    J = JacobianOperator(denoiser, x[:1].detach(), 1.5).dense()
    assert relative(J, oracle.jacobian(x[:1].detach(), 1.5)[0]) < 1e-12


class Net(nn.Module):
    """F of EDM's formula, which keeps what it was given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1)
        ).double()

    def forward(self, x, t):
        self.given = x, t
        return self.inner(x) * (1 + t.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_edm_is_karrass_formula_and_its_jacobian_right(sigma):
    network, s_d = Net(), 0.7
    denoiser = Denoiser(network, VarianceExploding(), EDM(s_d), SHAPE).eval()
    x = sigma * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).double()

    def D(x):
        power = sigma**2 + s_d**2
        time = torch.full((len(x),), math.log(sigma) / 4, dtype=torch.float64)
        F = network(x / math.sqrt(power), time)
        return s_d**2 / power * x + sigma * s_d / math.sqrt(power) * F

    assert relative(denoiser(x, sigma), D(x)) < 1e-14
    assert network.given[1].dtype == torch.float64
    expected = torch.autograd.functional.jacobian(D, x[:1]).reshape(12, 12)
    J = JacobianOperator(denoiser, x[0], sigma)
    assert J.path == "linearised"
    assert relative(J.dense(), expected) < 1e-12
    assert relative(J.T @ torch.eye(12).double().numpy(), expected.T) < 1e-12


def test_edm_on_another_schedule_is_the_same_denoiser():
    """x_t / alpha_t has noise of size sigma_t / alpha_t."""
    network, x = Net(), torch.randn(1, *SHAPE, dtype=torch.float64)
    exploding, flow = (
        Denoiser(network, schedule, EDM(), SHAPE).eval()
        for schedule in (VarianceExploding(), RectifiedFlow())
    )
    assert relative(flow(0.6 * x, 0.4), exploding(x, 0.4 / 0.6)) < 1e-14
    with pytest.raises(InputError, match="where alpha_t or sigma_t is 0, here at t = 1"):
        flow(x, 1.0)


def test_of_a_learned_variance_the_mean_is_kept():
    def network(x, t):
        return torch.cat([torch.tanh(x), 1 + x**2], 1)

    schedule, x = DiscreteSchedule.linear(), torch.randn(2, *SHAPE, dtype=torch.float64)
    plain = Denoiser(lambda x, t: torch.tanh(x), schedule, "epsilon", SHAPE)
    learned = Denoiser(network, schedule, "epsilon", SHAPE, learned_variance=True)
    assert torch.equal(learned(x, 300), plain(x, 300))
    with pytest.raises(InputError, match="pass learned_variance=True"):
        Denoiser(network, schedule, "epsilon", SHAPE)(x, 300)
    with pytest.raises(InputError, match=r"learned_variance=True, but .* \(2, 1, 3, 4\)"):
        Denoiser(plain.network, schedule, "epsilon", SHAPE, learned_variance=True)(x, 300)


def test_unknown_predictions_are_named():
    with pytest.raises(
        InputError,
        match=r"unknown prediction 'velocity': expected one of epsilon, v, sample, flow",
    ):
        Denoiser(nn.Identity(), DiscreteSchedule.linear(), "velocity", SHAPE)
    with pytest.raises(InputError, match="a score prediction does not determine the sample"):
        coefficients("score", torch.zeros(()), torch.ones(()))
