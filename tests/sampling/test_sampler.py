import itertools
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, RectifiedFlow
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import free_form, half
from jacobian_lab.derivative.guards import check_apart
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Fixed

import networks
from conftest import SCHEDULES, make_gaussian, make_mixture, relative


@pytest.mark.parametrize("name", SCHEDULES)
def test_samples_of_a_gaussian_have_its_moments(name):
    """The exact denoiser and many steps: what comes out is the prior, for every schedule."""
    oracle = make_gaussian(SCHEDULES[name][0])
    noise = torch.randn(
        2000, *oracle.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    *_, last = sample(oracle.denoiser("flow"), noise, oracle.schedule.times(100))
    x = last.x0.flatten(1)
    truth = oracle.eigenvectors[0] @ torch.diag(oracle.eigenvalues[0]) @ oracle.eigenvectors[0].T
    # sampling starts from pure noise, though x_T still holds alpha_T of the mean: Stable
    # Diffusion's table ends at 0.068
    assert (x.mean(0) - oracle.means[0]).abs().max() < 0.08 + 0.08 * oracle.means[0].abs().max()
    assert relative(torch.cov(x.T), truth) < 0.12


@pytest.mark.parametrize("name", SCHEDULES)
def test_temperature_shrinks_a_gaussian_around_its_mean(name):
    """The sampler is affine in all noise there: each sample's way from the mean is scaled."""
    oracle = make_gaussian(SCHEDULES[name][0])
    noise, times = seeded_noise(range(3), oracle.shape, dtype=torch.float64), (0.9, 0.5, 0.2, 0.05)
    times = [oracle.schedule.times(20)[round(20 * (1 - t))] for t in times]
    mask = torch.arange(noise[0].numel()).reshape(oracle.shape) % 2 == 0
    y = oracle.means[0].reshape(oracle.shape).expand_as(noise)
    newton = Newton("inexact", 2, Fixed(0.3), products="exact")

    def drawn(temperature, goal):
        *_, last = sample(
            oracle.denoiser("sample"),
            noise,
            times,
            goal,
            None if goal is None else newton,
            eta=0.7,
            temperature=temperature,
            seeds=[1, 2, 3],
        )
        return last.x0

    for goal in (None, Inpainting(y, mask)):
        cold, warm, hot = (drawn(temperature, goal) for temperature in (0.0, 0.4, 1.0))
        assert relative(warm - cold, 0.4 * (hot - cold)) < 1e-10
        assert not torch.equal(cold, hot)
    assert torch.equal(drawn(1.0, None), drawn(1, None))
    for wrong in (-0.1, 1.5, float("nan"), "cold"):
        with pytest.raises(InputError, match="temperature"):
            drawn(wrong, None)


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
    for schedule, steps in (
        (DiscreteSchedule.linear(), 0),
        (DiscreteSchedule.linear(), 1001),
        (RectifiedFlow(), 0),
    ):
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


class Faulty(nn.Module):
    """A network with a part that no sampler should take."""

    def __init__(self, part):
        super().__init__()
        self.inner, self.part = networks.Convolutional(), part

    def forward(self, x, t):
        return self.part(self.inner, x, t)


COUNTER = itertools.count()


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (lambda f, x, t: f(x, t) + 0.1 * torch.randn_like(x), "draws random numbers"),
        (lambda f, x, t: f(x, t) * (1 + 1e-3 * next(COUNTER)), "returns something else each time"),
        (lambda f, x, t: f(x - x.mean(0), t), "samples of a batch see each other"),
        (
            lambda f, x, t: F.batch_norm(f(x, t), None, None, training=True),
            "samples of a batch see each other",
        ),
        (lambda f, x, t: f(x, t) + x.flip(0), "samples of a batch see each other"),
    ],
)
def test_networks_that_no_sampler_should_take_are_refused(part, told):
    denoiser = Denoiser(Faulty(part).eval(), DiscreteSchedule.linear(), "v", networks.SHAPE)
    noise = seeded_noise(range(3), denoiser.shape)
    with pytest.raises(InputError, match=told):
        next(sample(denoiser, noise, denoiser.schedule.times(4)))
    for ask in (BatchJacobian.jvp, BatchJacobian.vjp):
        with pytest.raises(InputError, match=told):
            ask(BatchJacobian(denoiser, noise, 500, "exact"), noise)


@pytest.mark.parametrize("hidden", [False, True])
def test_training_mode_is_refused_also_in_a_closure(hidden):
    network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Dropout(0.5))
    called = (lambda x, t: network(x)) if hidden else Timeless(network)
    denoiser = Denoiser(called, DiscreteSchedule.linear(), "v", networks.SHAPE)
    with pytest.raises(InputError, match="the network is in training mode"):
        next(sample(denoiser, seeded_noise(range(2), denoiser.shape), denoiser.schedule.times(4)))
    network.eval()
    denoiser.eval()
    next(sample(denoiser, seeded_noise(range(2), denoiser.shape), denoiser.schedule.times(4)))


class Timeless(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t):
        return self.inner(x)


def test_gradient_steps_on_a_network_without_gradients_are_those_of_the_network():
    model = networks.denoiser()
    hidden = Denoiser(
        torch.no_grad()(lambda x, t: model.network(x, t)),
        model.schedule,
        model.prediction,
        model.shape,
    )
    noise = seeded_noise(range(2), model.shape, dtype=torch.float64)
    constraint, newton = (
        Inpainting(noise.flip(0).clamp(-1, 1), half(model.shape)),
        Newton("gradient", 2),
    )
    *_, plain = sample(model, noise, model.schedule.times(3), constraint, newton)
    *_, found = sample(hidden, noise, model.schedule.times(3), constraint, newton)
    assert relative(found.x0, plain.x0) < 1e-12


def test_differences_of_a_network_in_half_precision_take_steps_that_it_resolves():
    model = networks.unet(torch.float32)
    inner = networks.unet(torch.float32).network.bfloat16()
    rough = Denoiser(lambda x, t: inner(x.bfloat16(), t).float(), model.schedule, "v", model.shape)
    noise = seeded_noise(range(2), model.shape)
    first = BatchJacobian(rough, noise, 500)
    first.guard()
    e = seeded_noise([7, 8], model.shape)
    exact = BatchJacobian(model, noise, 500, "exact").jvp(e)
    # the step of float32 would drown in rounding: 7
    assert relative(BatchJacobian(rough, noise, 500).jvp(e), exact) < 0.5
    assert relative(first.jvp(e), exact) < 0.5
    assert relative(BatchJacobian(rough, noise, 499, like=first).jvp(e), exact) < 0.5


@pytest.mark.parametrize(
    ("kernels", "sees", "size", "refused"),
    [
        (1e-12, 0.0, 0.0, False),
        (0.0, 1e-11, 0.0, True),
        (0.0, 0.0, 1e-6, True),
        (1e-12, 1e-11, 0.0, True),
        (0.0, 1e-3, 0.0, True),
    ],
)
def test_kernels_that_round_otherwise_in_a_batch_are_no_coupling_of_its_samples(
    kernels, sees, size, refused
):
    """Far from the data a mixture cancels large logarithms: alone and among others it differed by
    6e-12, and was refused.
    """

    def function(x):
        others = x.sum() - x[-1].sum() if len(x) > 1 else x.new_zeros(())
        return (4 + 1e-6 * x) * (1 + kernels * (len(x) > 1) + sees * others + size * len(x))

    x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, eps = function(x), torch.finfo(torch.float64).eps
    with pytest.raises(InputError, match="see each other") if refused else nullcontext():
        check_apart(function, x, value, function(x[-1:]), eps)


@pytest.mark.parametrize("direction", ["inexact", "gradient", "exact", "krylov"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_samples_keep_their_precision_under_a_network_of_a_finer_output(dtype, direction):
    """As of half weights and a last layer in float32, which was given its own output's precision
    at the next time.
    """
    torch.manual_seed(0)
    layer = nn.Linear(4, 4).to(dtype).requires_grad_(False)
    finer = torch.promote_types(torch.float32, torch.float64 if dtype == torch.float32 else dtype)
    denoiser = Denoiser(lambda x, t: layer(x).tanh().to(finer), RectifiedFlow(), "flow", (4,))
    noise = seeded_noise([0, 1], (4,), dtype=dtype)
    assert denoiser(noise, 0.5).dtype == dtype
    known = Inpainting(torch.zeros(4), torch.tensor([True, False, True, False]))
    for products in ("forward", "exact"):
        newton = Newton(direction, 1, products=products, krylov_steps=2)
        for state in sample(denoiser, noise, [1.0, 0.5, 0.2], known, newton):
            assert state.x_t.dtype == state.x0.dtype == state.residual.dtype == dtype


@pytest.mark.parametrize("name", ["x_t", "x0"])
def test_a_caller_that_writes_into_a_state_is_told(name):
    denoiser = make_gaussian(DiscreteSchedule.linear()).denoiser()
    noise = seeded_noise([0, 1], denoiser.shape, dtype=torch.float64)
    states = sample(denoiser, noise, denoiser.schedule.times(5))
    getattr(next(states), name).clone().zero_()
    getattr(next(states), name).zero_()
    with pytest.raises(InputError, match="written into: clone it first"):
        next(states)
