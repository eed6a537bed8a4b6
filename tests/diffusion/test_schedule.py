import math

import numpy as np
import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, RectifiedFlow

from conftest import SCHEDULES

DISCRETE = [name for name in SCHEDULES if name != "flow"]


@pytest.mark.parametrize("name", DISCRETE)
def test_variance_is_preserved_and_the_signal_falls(name):
    schedule = SCHEDULES[name][0]
    alpha, sigma = schedule(torch.arange(1000))
    assert alpha.dtype == torch.float64
    torch.testing.assert_close(
        alpha**2 + sigma**2, torch.ones(1000, dtype=torch.float64), rtol=0, atol=1e-15
    )
    assert (alpha.diff() < 0).all()
    assert (sigma > 0).all()


def test_linear_table_is_the_product_of_its_betas():
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha, sigma = DiscreteSchedule.linear()(500)
    expected = math.prod(1 - betas[:501])
    assert float(alpha) == pytest.approx(math.sqrt(expected), rel=1e-12)
    assert float(sigma) == pytest.approx(math.sqrt(1 - expected), rel=1e-12)


def test_scaled_linear_table_is_that_of_stable_diffusion():
    # alpha_bar_999 = 0.00466 is the value known from Stable Diffusion's scheduler
    table = DiscreteSchedule.scaled_linear().alphas_cumprod
    assert float(table[0]) == pytest.approx(1 - 0.00085, rel=1e-12)
    assert float(table[-1]) == pytest.approx(0.00466, rel=2e-3)


def test_cosine_table_follows_the_squared_cosine_until_the_betas_are_clipped():
    table = DiscreteSchedule.cosine().alphas_cumprod
    u = (500 + 1) / 1000

    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    assert float(table[500]) == pytest.approx(f(u) / f(0), rel=1e-12)
    assert table[-1] > 0


def test_rectified_flow_is_the_straight_line():
    alpha, sigma = RectifiedFlow()(torch.tensor([0.25, 1.0]))
    assert alpha.tolist() == [0.75, 0.0]
    assert sigma.tolist() == [0.25, 1.0]
    assert float(RectifiedFlow()(0.3)[1]) == 0.3  # a Python float keeps its digits


def test_add_noise_with_a_time_for_each_sample_equals_one_by_one(schedule_and_time):
    schedule, t = schedule_and_time
    g = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 1, 2, 2, generator=g)
    times = torch.tensor([t, t, t / 2 if isinstance(t, float) else t // 2])
    together = schedule.add_noise(x, times, noise)
    alone = torch.stack([schedule.add_noise(x[i], times[i], noise[i]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    assert together.dtype == torch.float32


@pytest.mark.parametrize("t", [-1, 1000, torch.tensor([3, 1000])])
def test_a_time_outside_the_table_is_named(t):
    with pytest.raises(
        InputError, match="outside this schedule: expected an integer from 0 to 999"
    ):
        DiscreteSchedule.linear()(t)


@pytest.mark.parametrize("t", [0.5, 500.0, True, torch.tensor([0.5])])
def test_a_discrete_schedule_refuses_other_kinds_of_time(t):
    with pytest.raises(InputError, match="takes an integer time"):
        DiscreteSchedule.linear()(t)


@pytest.mark.parametrize("t", [0.0, 1.5, -0.1, 500, float("nan")])
def test_a_flow_refuses_times_outside_its_interval(t):
    with pytest.raises(InputError, match=r"time in \(0, 1\]"):
        RectifiedFlow()(t)


def test_wrong_shapes_are_named():
    schedule = DiscreteSchedule.linear()
    with pytest.raises(InputError, match=r"shape of x0: expected \(1, 2, 2\), got \(2, 2\)"):
        schedule.add_noise(torch.zeros(1, 2, 2), 3, torch.zeros(2, 2))
    with pytest.raises(InputError, match=r"expected 3 times .* got 2"):
        schedule.add_noise(torch.zeros(3, 1, 2, 2), torch.tensor([1, 2]), torch.zeros(3, 1, 2, 2))
    # not one time for each channel
    with pytest.raises(InputError, match="is an image, or a batch of series"):
        schedule.add_noise(torch.zeros(3, 2, 2), torch.tensor([0, 500, 999]), torch.zeros(3, 2, 2))
    with pytest.raises(InputError, match=r"\(\) or \(B,\)"):
        schedule(torch.zeros(2, 2, dtype=torch.long))


@pytest.mark.parametrize(
    "table", [[0.5, 0.6], [1.5, 0.6], [0.5, 0.0, 0.0], [0.5, -0.1], [[1.0, 1.0]], []]
)
def test_an_impossible_table_is_refused(table):
    with pytest.raises(InputError, match="vector in"):
        DiscreteSchedule(torch.tensor(table))


def test_a_table_may_end_at_pure_noise():
    schedule = DiscreteSchedule(torch.tensor([0.9, 0.5, 0.0]))
    assert [float(c) for c in schedule(2)] == [0.0, 1.0]
    x, raw = torch.randn(2, 1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Denoiser(lambda x, t: raw, schedule, "v", (1, 2, 2))(x, 2), -raw)
    noise = Denoiser(lambda x, t: raw, schedule, "epsilon", (1, 2, 2))
    assert noise(x, 1).isfinite().all()
    with pytest.raises(InputError, match="does not determine the sample where alpha_t = 0"):
        noise(x, 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_images_of_integers_are_refused_with_the_range_they_should_have(dtype):
    schedule, images = DiscreteSchedule.linear(), torch.ones(1, 1, 2, 2).to(dtype)
    with pytest.raises(
        InputError, match=r"pixels in \[-1, 1\]: got torch\.\w+\. Write x / 127\.5 - 1"
    ):
        schedule.add_noise(images, 500, torch.randn(1, 1, 2, 2))
    with pytest.raises(InputError, match=r"pixels in \[-1, 1\]"):
        schedule.add_noise(torch.randn(1, 1, 2, 2), 500, images)
    denoiser = Denoiser(lambda x, t: x, schedule, "v", (1, 2, 2))
    for call in (denoiser.noise, denoiser.raw):
        with pytest.raises(InputError, match=r"pixels in \[-1, 1\]"):
            call(images, images, 500)


def test_a_table_keeps_its_digits_or_is_refused():
    table = DiscreteSchedule.linear().alphas_cumprod
    assert torch.equal(
        DiscreteSchedule(table.float().requires_grad_()).alphas_cumprod, table.float().double()
    )
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(InputError, match=r"load the model in float32"):
            DiscreteSchedule(table.to(dtype))
