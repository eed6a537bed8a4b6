"""azula's denoisers in our operator, and ours in its samplers."""

import pickle
from itertools import pairwise

import pytest
import torch

from jacobian_lab import (
    DiscreteSchedule,
    InputError,
    RectifiedFlow,
    VarianceExploding,
    load,
    to_azula,
)

from adapter_cases import cases, check_products, check_value
from conftest import make_gaussian, relative

pytest.importorskip("azula", reason='pip install -e ".[peers]"')


@cases("azula")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("azula", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


SCHEDULES = [
    (RectifiedFlow(), lambda t: t),
    (DiscreteSchedule.linear(), lambda t: round(1000 * t) - 1),
    (VarianceExploding(20, 0.01), lambda t: VarianceExploding(20, 0.01).times(9)[8 - round(8 * t)]),
]


@pytest.mark.parametrize(("schedule", "time"), SCHEDULES, ids=["flow", "table", "exploding"])
def test_azulas_sampler_takes_the_steps_of_our_posterior_mean(schedule, time):
    from azula.sample import DDIMSampler

    oracle = make_gaussian(schedule).denoiser("sample")
    x = torch.randn(3, *oracle.shape, dtype=torch.float64)
    theirs = DDIMSampler(
        to_azula(oracle), start=0.875, steps=7, eta=0.0, silent=True, dtype=torch.float64
    )(x)
    for t, s in pairwise([k / 8 for k in range(7, -1, -1)]):
        x0 = oracle(x, time(t))
        clean = s == 0 and not isinstance(schedule, VarianceExploding)
        alpha, sigma = (1.0, 0.0) if clean else map(float, schedule(time(s)))
        x = alpha * x0 + sigma * oracle.noise(x, x0, time(t))
    assert relative(theirs, x) < 1e-10


def test_a_sampler_of_second_order_stops_above_0_or_is_told():
    from azula.sample import HeunSampler

    oracle = make_gaussian(RectifiedFlow()).denoiser("sample")
    x = torch.randn(2, *oracle.shape, dtype=torch.float64)
    options = {"start": 0.9, "steps": 4, "silent": True}
    assert HeunSampler(to_azula(oracle), stop=1e-3, **options)(x).isfinite().all()
    with pytest.raises(InputError, match=r"takes a time in \(0, 1\]"):
        HeunSampler(to_azula(oracle), stop=0.0, **options)(x)


def test_it_also_takes_a_vector_of_times():
    oracle = make_gaussian(RectifiedFlow()).denoiser("sample")
    alpha, sigma = to_azula(oracle).schedule(torch.tensor([0.0, 0.25, 1.0]))
    assert alpha.tolist() == [1.0, 0.75, 0.0]
    assert sigma.tolist() == [0.0, 0.25, 1.0]


def test_there_and_back_is_the_same_denoiser():
    oracle = make_gaussian(RectifiedFlow()).denoiser("sample")
    x = torch.randn(2, *oracle.shape, dtype=torch.float64)
    back = load(to_azula(oracle), family="azula", shape=oracle.shape)
    assert relative(back(x, 0.3), oracle(x, 0.3)) < 1e-14


def test_azulas_schedule_can_be_pickled_for_other_processes():
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule

    made = load(KarrasDenoiser(torch.nn.Identity(), VPSchedule()), shape=(2,))
    alpha, sigma = pickle.loads(pickle.dumps(made.schedule))(0.5)
    assert (alpha, sigma) == made.schedule(0.5)


def test_what_is_no_denoiser_is_told():
    with pytest.raises(InputError, match="denoiser must be a Denoiser: got 3"):
        to_azula(3)


def test_azulas_gaussian_takes_one_time_for_a_batch():
    from azula.denoise import GaussianDenoiser
    from azula.linalg.covariance import DiagonalCovariance
    from azula.noise import RectifiedSchedule

    variance = torch.rand(4).double() + 0.1
    oracle = GaussianDenoiser(
        torch.zeros(4).double(), DiagonalCovariance(variance), RectifiedSchedule()
    )
    D, x = load(oracle, shape=(4,)), torch.randn(3, 4).double()
    alpha, sigma = D.schedule(0.3)
    wanted = alpha * variance / (alpha**2 * variance + sigma**2) * x
    assert relative(D(x, 0.3), wanted) < 1e-12
    with pytest.raises(InputError, match="one time for all"):
        D(x, torch.tensor([0.3, 0.4, 0.5]))
