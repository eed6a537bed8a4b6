import pytest
import torch

from conftest import SCHEDULES, make_gaussian, make_mixture, relative
from jacobian_lab import DiscreteSchedule, InputError, RectifiedFlow
from jacobian_lab.masks import free_form
from jacobian_lab.sampler import sample, seeded_noise


@pytest.mark.parametrize("name", SCHEDULES)
def test_samples_of_a_gaussian_have_its_moments(name):
    """The exact denoiser and many steps: what comes out is the prior, for every schedule."""
    oracle = make_gaussian(SCHEDULES[name][0])
    noise = torch.randn(2000, *oracle.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    *_, last = sample(oracle.denoiser("flow"), noise, oracle.schedule.times(100))
    x = last.x0.flatten(1)
    truth = oracle.eigenvectors[0] @ torch.diag(oracle.eigenvalues[0]) @ oracle.eigenvectors[0].T
    # sampling starts from pure noise, though x_T still holds alpha_T of the mean: Stable Diffusion's table ends at 0.068
    assert (x.mean(0) - oracle.means[0]).abs().max() < 0.08 + 0.08 * oracle.means[0].abs().max()
    assert relative(torch.cov(x.T), truth) < 0.12


def test_each_step_keeps_the_noise_and_changes_its_amount():
    oracle = make_mixture(RectifiedFlow())
    denoiser = oracle.denoiser("sample")
    noise = torch.randn(2, *oracle.shape, dtype=torch.float64)
    one, two, three = sample(denoiser, noise, [0.9, 0.5, 0.2])
    velocity = denoiser.noise(one.x_t, one.x0, 0.9) - one.x0
    assert relative(two.x_t, one.x_t + (0.5 - 0.9) * velocity) < 1e-12  # Euler's step
    assert relative(three.x0, denoiser(three.x_t, 0.2)) < 1e-12


def test_times_fall_from_the_noisiest():
    assert DiscreteSchedule.linear().times(4) == [999, 749, 499, 249]
    assert DiscreteSchedule.linear().times(1000) == list(range(999, -1, -1))
    assert RectifiedFlow().times(4) == [1.0, 0.75, 0.5, 0.25]
    for schedule, steps in ((DiscreteSchedule.linear(), 0), (DiscreteSchedule.linear(), 1001), (RectifiedFlow(), 0)):
        with pytest.raises(InputError, match="steps must"):
            schedule.times(steps)


def test_a_seed_means_the_same_alone_and_in_a_batch():
    noise = seeded_noise([3, 4, 5], (1, 2, 2))
    assert torch.equal(seeded_noise([4], (1, 2, 2))[0], noise[1])
    assert torch.equal(seeded_noise([3, 4, 5], (1, 2, 2), dtype=torch.float64), noise.double())


def test_times_that_do_not_fall_are_refused():
    oracle = make_gaussian(RectifiedFlow())
    for times in ([], [0.5, 0.5], [0.1, 0.9]):
        with pytest.raises(InputError, match="times must decrease"):
            list(sample(oracle.denoiser(), torch.zeros(1, *oracle.shape), times))


def test_a_seed_means_the_same_whatever_the_default_dtype():
    noise, mask = seeded_noise([0], (1, 4, 4)), free_form((1, 32, 32), seed=1)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(seeded_noise([0], (1, 4, 4)), noise)
        assert torch.equal(free_form((1, 32, 32), seed=1), mask)
    finally:
        torch.set_default_dtype(torch.float32)


def test_noise_that_is_not_finite_is_not_called_divergence():
    oracle = make_gaussian(DiscreteSchedule.linear())
    with pytest.raises(InputError, match=r"the noise has \d+ values of \d+ that are not finite"):
        next(sample(oracle.denoiser("v"), torch.full((1, *oracle.shape), torch.nan), [999]))
