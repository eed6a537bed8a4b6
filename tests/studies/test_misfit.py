"""Misfit and slope: those of |y - A x|^2, for linear and other observations and for latents."""

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.decoded import Decoded
from studies.contest.methods import misfit as tools

from peer_checks import SHAPE, masked, matrix, shrunk


class Squares(Constraint):
    """Observations y = x^2, of which only the residual is told."""

    def __init__(self, y):
        self.y = y

    def error(self, x0):
        return self.y - x0**2

    def residual(self, x0):
        return (self.y - x0**2).flatten(1).square().sum(1).sqrt()


class Observed(Squares):
    """The same, with what is missing."""

    sigma = 0.3

    def missing(self, x0):
        return self.y - x0**2

    def count(self):
        return 12


class Rounded(Observed):
    """Without a gradient."""

    def missing(self, x0):
        return self.y - x0.detach().round()


X = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = X.flip(0).abs()


@pytest.mark.parametrize("problem", [masked(0.1), shrunk()])
def test_linear_observations(problem):
    A = matrix(problem)
    y = problem.y.flatten(1)
    off = X.flatten(1) @ A.T - y
    assert torch.allclose(tools.misfit(problem, X), off.square().sum(1))
    assert torch.allclose(tools.slope(problem, X).flatten(1), off @ A)
    assert tools.noise_of(problem) == problem.sigma
    assert tools.noise_of(problem, 0.2) == 0.2
    assert tools.linear(problem, "it") is problem


@pytest.mark.parametrize("kind", [Squares, Observed])
def test_other_observations(kind):
    problem = kind(Y)
    assert torch.allclose(tools.misfit(problem, X), (Y - X**2).square().flatten(1).sum(1))
    assert torch.allclose(tools.slope(problem, X), -2 * X * (Y - X**2))
    assert tools.observed_count(problem) == (12 if kind is Observed else 1)
    assert tools.noise_of(problem) == (0.3 if kind is Observed else 0.0)
    with pytest.raises(InputError, match=f"it needs linear .* got {kind.__name__}"):
        tools.linear(problem, "it")


def test_latents_are_decoded_first():
    inner = masked(0.1)
    problem = Decoded(inner, lambda x: x / 2, lambda z: 2 * z, "secant")
    assert torch.allclose(tools.misfit(problem, X), tools.misfit(inner, 2 * X))
    assert torch.allclose(tools.slope(problem, X), 2 * tools.slope(inner, 2 * X))
    assert tools.observations(problem) is inner
    assert tools.latent(problem, "it") is problem
    with pytest.raises(InputError, match="it works on latents: got Inpainting, expected"):
        tools.latent(inner, "it")
    assert tools.noise_of(problem) == 0.1
    assert (tools.observed_count(problem) == inner.count()).all()


def test_what_has_no_gradient_is_told():
    with pytest.raises(InputError, match="Rounded has no gradient"):
        tools.slope(Rounded(Y), X)
