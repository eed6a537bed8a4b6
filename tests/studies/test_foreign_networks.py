"""Networks of diffusers with random weights: the same ones each time, and with derivatives."""

import sys
from types import SimpleNamespace

import pytest
import torch

from jacobian_lab import InputError, JacobianOperator
from studies.benchmarks.foreign_networks import FixedInputs, foreign_networks

from conftest import relative

pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
NAMES = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")


class Echo(torch.nn.Module):
    """A network in diffusers' form: twice as many channels as it gets, of x and of the prompt."""

    def forward(self, x, t, prompt):
        assert prompt.shape == (len(x), 3)
        out = x * prompt.sum(1).reshape(-1, 1, 1, 1) + t.reshape(-1, 1, 1, 1)
        return SimpleNamespace(sample=torch.cat([out, torch.full_like(out, torch.nan)], 1))


@pytest.fixture(scope="module")
def networks():
    return foreign_networks()


def test_what_is_held_fixed_is_given_to_each_sample_and_the_variance_left_out():
    network = FixedInputs(Echo(), prompt=torch.tensor([[1.0, 2.0, 3.0]])).double()
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    t = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.equal(network(x, t), 6 * x + t.reshape(-1, 1, 1, 1))
    assert network.state_dict().keys() == {"prompt"}


def test_they_are_the_same_each_time_and_leave_the_generator_alone(networks):
    assert tuple(networks) == NAMES
    torch.manual_seed(12)
    state = torch.get_rng_state()
    again = foreign_networks()
    assert torch.equal(torch.get_rng_state(), state)
    for name, denoiser in networks.items():
        ours, theirs = (d.network.state_dict() for d in (denoiser, again[name]))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_jacobian_that_its_differences_agree_with(networks, name):
    denoiser = networks[name]
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.randn(1, *denoiser.shape, generator=generator) for _ in range(2))
    assert not denoiser.network.training
    assert not any(p.requires_grad for p in denoiser.network.parameters())
    with torch.no_grad():
        raw, step = denoiser.network(x, torch.tensor([500])), 1e-2
        difference = (denoiser(x + step * v, 500) - denoiser(x - step * v, 500)) / (2 * step)
    assert raw.abs().max() > 1e-3  # a fresh transformer is zero at its end
    J = JacobianOperator(denoiser, x, 500)
    assert relative(J.matvec(v.flatten().numpy()), difference.flatten()) < 1e-2


def test_without_diffusers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"diffusers is missing: pip install -e"):
        foreign_networks()
