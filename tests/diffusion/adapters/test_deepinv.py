"""deepinv's denoisers in our operator, and ours in its algorithms."""

import pytest
import torch

from jacobian_lab import (
    DiscreteSchedule,
    InputError,
    RectifiedFlow,
    VarianceExploding,
    load,
    to_deepinv,
)

from adapter_cases import cases, check_products, check_value
from conftest import make_gaussian, relative

pytest.importorskip("deepinv", reason='pip install -e ".[peers]"')


@cases("deepinv")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("deepinv", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VarianceExploding(20.0)])
def test_our_denoiser_is_the_posterior_mean_of_pixels_in_0_1(schedule):
    """Of y = (x_0 + 1) / 2 + sigma noise, by the closed form at 2 sigma."""
    ours = to_deepinv(make_gaussian(schedule).denoiser("sample"))
    plain = make_gaussian(VarianceExploding(20.0)).denoiser("sample")
    y = torch.rand(3, *plain.shape, dtype=torch.float64)
    for sigma in (0.1, torch.tensor(0.3), torch.tensor([0.05, 0.4, 1.0]).double()):
        level = torch.as_tensor(sigma).flatten() * 2
        assert relative(2 * ours(y, sigma) - 1, plain(2 * y - 1, level)) < 1e-7


def test_a_noise_level_becomes_the_nearest_time_of_a_table():
    schedule = DiscreteSchedule.linear()
    alpha, sigma = schedule(torch.tensor([3, 500, 998]))
    assert schedule.time_of(sigma / alpha).tolist() == [3, 500, 998]
    assert schedule.time_of(torch.tensor([0.0, 1e9])).tolist() == [0, 999]


def test_deepinvs_algorithm_restores_with_it():
    """DiffPIR inpaints a sample of a Gaussian prior: nearer than the pixels known alone."""
    import deepinv

    oracle = make_gaussian(DiscreteSchedule.linear())
    denoiser = oracle.denoiser("sample").float()
    x = (oracle.sample(1, torch.Generator().manual_seed(0)).float() * 0.1 + 1) / 2
    mask = torch.ones(x.shape[1:])
    mask[..., ::2] = 0
    physics = deepinv.physics.Inpainting(
        x.shape[1:], mask, noise_model=deepinv.physics.GaussianNoise(0.01)
    )
    method = deepinv.sampling.DiffPIR(
        to_deepinv(denoiser), deepinv.optim.data_fidelity.L2(), sigma=0.01, max_iter=20
    )
    found = method(physics(x), physics, seed=1)
    assert found.isfinite().all()
    assert ((found - x) * mask).abs().max() < 0.1


def test_there_and_back_is_the_same_denoiser():
    oracle = make_gaussian(VarianceExploding(20.0)).denoiser("sample")
    x = torch.randn(2, *oracle.shape, dtype=torch.float64)
    back = load(to_deepinv(oracle), family="deepinv", shape=oracle.shape)
    assert relative(back(x, 0.3), oracle(x, 0.3)) < 1e-10


def test_what_is_no_denoiser_is_told():
    with pytest.raises(InputError, match="denoiser must be a Denoiser: got 3"):
        to_deepinv(3)


@pytest.mark.parametrize("sigma", [0.6, -1.0, float("nan")])
def test_a_noise_level_that_the_model_does_not_know_is_told(sigma):
    ours = to_deepinv(make_gaussian(VarianceExploding(1.0)).denoiser("sample"))
    with pytest.raises(InputError, match=r"sigma|noisiest"):
        ours(torch.rand(1, *ours.denoiser.shape).double(), sigma)
    assert ours(torch.rand(1, *ours.denoiser.shape).double(), 0.5).isfinite().all()
