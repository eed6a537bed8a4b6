"""Step sizes: what each costs, and that samples of a batch do not influence each other."""

import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule, VarianceExploding
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.newton import Newton, newton_step
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import (
    Backtracking,
    Dynamic,
    ExactMinimiser,
    Fixed,
    PerError,
    Secant,
    Spectral,
)

import networks
from conftest import relative

RULES = (
    Dynamic(0.3),
    Dynamic(0.3, 0.1),
    Fixed(0.1),
    PerError(4.0),
    Spectral(1.0, 6),
    ExactMinimiser(),
    Backtracking(),
)


@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        (DiscreteSchedule.cosine(), Dynamic(0.2)),
        (DiscreteSchedule.cosine(), Secant(0.2)),
        (VarianceExploding(), Dynamic(0.2)),
        (VarianceExploding(), Secant(0.2)),
        (VarianceExploding(), Backtracking(0.2)),
    ],
    ids=repr,
)
def test_a_step_in_half_precision_is_as_long_as_it_says(schedule, rule):
    """lambda is beyond 65504 where J is small: x_t was infinite, or moved by a tenth of c."""
    t = schedule.times(4)[0]

    def mean(x, t):  # of the prior N(0, 1 / 4)
        alpha, sigma = (float(c) for c in schedule(t[0]))
        return (alpha * x.float() / (alpha**2 + 4 * sigma**2)).to(x)

    denoiser = Denoiser(mean, schedule, "sample", (1, 16, 16))
    x_t = seeded_noise([0], denoiser.shape, dtype=torch.float16) * float(schedule.scale(t))
    known = Inpainting(torch.full((1, 1, 16, 16), 0.5), half(denoiser.shape))
    moved = newton_step(BatchJacobian(denoiser, x_t, t), known, Newton(step_size=rule))
    assert moved.dtype == torch.float16
    change = float((moved.double() - x_t.double()).abs().max() / schedule.scale(t))
    assert change == pytest.approx(0.2, rel=0.02)


def last(*args, **options):
    *_, state = sample(*args, **options)
    return state


@pytest.mark.parametrize("rule", RULES)
def test_passes_are_counted(rule):
    denoiser = networks.denoiser(dtype=torch.float32)
    calls = []
    inner = denoiser.network
    denoiser.network = type(
        "Counting",
        (torch.nn.Module,),
        {"forward": lambda self, x, t: (calls.append(len(x)), inner(x, t))[1]},
    )().eval()
    noise = seeded_noise(range(3), denoiser.shape)
    constraint = Inpainting(torch.zeros_like(noise), half(denoiser.shape))
    state = last(
        denoiser, noise, denoiser.schedule.times(4), constraint, Newton("inexact", 2, rule)
    )
    # the guard's sample alone is not counted
    assert sorted(calls) == [1] + [3] * state.spent.forward
    assert state.spent.jvp == state.spent.vjp == 0
    if isinstance(rule, (Dynamic, Fixed)):
        assert state.spent.forward == 4 * (2 * 2 + 1)
    state = last(
        denoiser, noise, denoiser.schedule.times(4), constraint, Newton("gradient", 2, Fixed(0.1))
    )
    assert (state.spent.forward, state.spent.vjp) == (4 * 3, 4 * 2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("flow", [False, True])
def test_samples_do_not_influence_each_other(rule, flow):
    denoiser = networks.denoiser("flow" if flow else "v", flow)
    noise = seeded_noise([5, 6, 7], denoiser.shape, dtype=torch.float64)
    images = noise.roll(1, 0).clamp(-1, 1)
    times, newton = denoiser.schedule.times(5), Newton("inexact", 2, rule, products="exact")
    options = {"eta": 0.5}
    together = last(
        denoiser,
        noise,
        times,
        Inpainting(images, half(denoiser.shape)),
        newton,
        seeds=[1, 2, 3],
        **options,
    )
    alone = last(
        denoiser,
        noise[1:2],
        times,
        Inpainting(images[1:2], half(denoiser.shape)),
        newton,
        seeds=[2],
        **options,
    )
    assert relative(alone.x0[0], together.x0[1]) < 1e-9
    assert alone.residual[0] == pytest.approx(float(together.residual[1]), rel=1e-9)


def test_a_step_per_error_has_that_length_and_does_not_overshoot():
    denoiser = networks.denoiser()
    x_t = seeded_noise(range(2), denoiser.shape, dtype=torch.float64)
    J = BatchJacobian(denoiser, x_t, 500, "exact")
    constraint = Inpainting(torch.zeros_like(x_t), half(denoiser.shape))
    e = constraint.error(J.d)
    g = J.jvp(e)
    short, long = (PerError(c)(J, e, g, constraint, 0.0) for c in (1e-6, 1e6))
    assert (
        relative(short * e.flatten(1).norm(dim=1), torch.full((2,), 1e-6, dtype=torch.float64))
        < 1e-12
    )
    assert torch.equal(long, Secant(1e6)(J, e, g, constraint, 0.0))
    assert PerError(1.0)(J, 0 * e, g, constraint, 0.0).tolist() == [0, 0]
