"""Samples of any rank, from a denoiser to a constrained sample: vectors, series, volumes, point
sets.
"""

import numpy as np
import pytest
import torch

from jacobian_lab import (
    BatchJacobian,
    Denoiser,
    DiscreteSchedule,
    Inpainting,
    InputError,
    JacobianOperator,
    LinearMap,
    Loss,
    Newton,
    RectifiedFlow,
    VarianceExploding,
    audit,
    eigenpairs,
    gaussian,
    gaussian_blur,
    masks,
    newton_direction,
    sample,
    seeded_noise,
    super_resolution,
)

from conftest import random_covariance, relative

SHAPES = {
    "number": (1,),
    "vector": (12,),
    "series": (2, 7),
    "points": (5, 3),
    "image": (1, 3, 4),
    "volume": (1, 2, 3, 4),
    "video": (2, 2, 2, 2, 2),
}
SCHEDULES = [(DiscreteSchedule.linear(), 300), (RectifiedFlow(), 0.4), (VarianceExploding(), 3.0)]


def oracle(shape, schedule=SCHEDULES[0][0]):
    g = torch.Generator().manual_seed(0)
    n = int(np.prod(shape))
    mean = torch.randn(n, generator=g, dtype=torch.float64)
    return gaussian(mean, random_covariance(n, g), schedule, shape)


@pytest.mark.parametrize(("schedule", "t"), SCHEDULES, ids=repr)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "score"])
@pytest.mark.parametrize("name", SHAPES)
def test_products_and_eigenpairs_are_those_of_the_oracle(name, prediction, schedule, t):
    shape = SHAPES[name]
    known = oracle(shape, schedule)
    denoiser = known.denoiser(prediction)
    x0 = known.sample(2, torch.Generator().manual_seed(1))
    noise = seeded_noise([0, 1], shape, dtype=torch.float64)
    x_t = denoiser.add_noise(x0, t, noise)
    assert relative(x_t, schedule.add_noise(x0, t, noise)) < 1e-15
    assert relative(denoiser(x_t[0], t), known.mean(x_t, t)[0]) < 1e-11
    truth = known.jacobian(x_t[:1], t)[0].numpy()
    n = len(truth)
    for given in (x_t[0], x_t[:1]):
        J = JacobianOperator(denoiser, given, t)
        assert J.shape == (n, n)
        assert relative(J.dense(), truth) < 1e-12
        assert relative(J.T @ np.eye(n), truth.T) < 1e-12
    found = eigenpairs(J, k=1)
    assert found.converged
    assert abs(found.values[0] - np.linalg.eigvalsh(truth)[-1]) <= found.errors[0] + 1e-12
    batch = BatchJacobian(denoiser, x_t, t, products="exact")
    v = seeded_noise([5, 6], shape, dtype=torch.float64)
    for product in (batch.jvp(v), batch.vjp(v)):
        assert relative(product[0].flatten(), truth @ v[0].flatten().numpy()) < 1e-11


@pytest.mark.parametrize("direction", ["inexact", "gradient", "exact", "krylov", "identity"])
@pytest.mark.parametrize("name", SHAPES)
def test_constrained_samples_meet_their_mask(name, direction):
    shape = SHAPES[name]
    denoiser = oracle(shape).denoiser("v")
    y = oracle(shape).sample(2, torch.Generator().manual_seed(2))
    mask = masks.random_pixels(shape, 0.5 if shape != (1,) else 1.0)
    assert mask.sum() == (round(0.5 * mask.numel()) if shape != (1,) else 1)
    for known, count in ((y, 2), (y[:1], 1), (y[0], 1)):
        constraint = Inpainting(known, mask)
        newton = Newton(direction, 2)
        noise = seeded_noise([0, 1], shape, dtype=torch.float64)
        *_, last = sample(denoiser, noise, [900, 500, 100], constraint, newton, project=True)
        expected = known if count == 2 else known.reshape(1, *shape).expand(2, *shape)
        marked = mask.expand(2, *shape)
        assert torch.equal(last.x0[marked], expected[marked])
        assert last.residual.max() == 0


@pytest.mark.parametrize("name", SHAPES)
def test_masks_of_each_sample_and_other_constraints(name):
    shape = SHAPES[name]
    y, x0 = seeded_noise([0, 1], shape), seeded_noise([2, 3], shape)
    own = torch.stack([torch.ones(shape, dtype=torch.bool), seeded_noise([9], shape)[0] > -9])
    constraint = Inpainting(y, own)
    assert relative(x0 + constraint.error(x0), y) < 1e-6
    n = int(np.prod(shape))
    A = np.random.default_rng(0).standard_normal((1, n)).astype(np.float32)
    observed = LinearMap(
        torch.ones(1, 1),
        lambda x: x.flatten(1) @ torch.from_numpy(A).to(x).T,
        lambda u: (u @ torch.from_numpy(A).to(u)).reshape(-1, *shape),
    )
    assert observed.residual(x0 + observed.error(x0)).max() < 1e-5
    loss = Loss(lambda x: (x - 1).flatten(1).square().sum(1))
    assert loss.error(x0).shape == x0.shape
    assert (loss.residual(x0 + 0.5 * loss.error(x0)) < loss.residual(x0)).all()
    if len(shape) != 3:
        for make in (lambda: super_resolution(y, 2), lambda: gaussian_blur(y, 1.0)):
            if y.ndim != 3:
                with pytest.raises(InputError, match="this constraint is for images"):
                    make()
        with pytest.raises(InputError, match="this mask is for images"):
            masks.half(shape)


def test_one_unknown_channel_of_a_single_series_is_no_empty_sample():
    y, mask = torch.zeros(2, 7), torch.zeros(2, 7, dtype=torch.bool)
    mask[0] = True
    assert Inpainting(y, mask).residual(torch.ones(3, 2, 7)).tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="marks no pixel of a sample"):
        Inpainting(y, mask).residual(torch.ones(2, 7))


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_on_other_ranks_is_linearised_and_passes_the_audit(name):
    shape = SHAPES[name]
    n = int(np.prod(shape))
    torch.manual_seed(0)
    inner = torch.nn.Sequential(
        torch.nn.Linear(n, 24), torch.nn.SiLU(), torch.nn.LayerNorm(24), torch.nn.Linear(24, n)
    ).double()

    def network(x, t):
        return inner(x.flatten(1)).reshape(x.shape)

    denoiser = Denoiser(network, DiscreteSchedule.linear(), "v", shape)
    x_t = seeded_noise([0], shape, dtype=torch.float64)
    J = JacobianOperator(denoiser, x_t, 300)
    assert J.path == "linearised"
    truth = torch.autograd.functional.jacobian(lambda x: denoiser(x, 300), x_t).reshape(n, n)
    assert relative(J.dense(), truth) < 1e-12
    assert audit(J), str(audit(J))
    for kind in ("inexact", "gradient", "exact", "krylov", "identity"):
        assert newton_direction(J, torch.ones(shape).double(), kind).shape == shape


@pytest.mark.parametrize("shape", [(), (0,), (3, -1), (2.5,), "abc", 4])
def test_shapes_that_are_none_are_refused(shape):
    with pytest.raises(InputError, match="shape must be positive integers"):
        Denoiser(lambda x, t: x, DiscreteSchedule.linear(), "v", shape)


def test_a_batch_of_series_with_a_time_for_each_wants_the_denoiser():
    denoiser = oracle((2, 7)).denoiser()
    x0, noise = torch.randn(2, 3, 2, 7, dtype=torch.float64)
    times = torch.tensor([10, 500, 900])
    with pytest.raises(InputError, match=r"Denoiser.add_noise, which knows the shape"):
        denoiser.schedule.add_noise(x0, times, noise)
    alone = [denoiser.add_noise(x0[i], int(times[i]), noise[i]) for i in range(3)]
    assert relative(denoiser.add_noise(x0, times, noise), torch.stack(alone)) < 1e-15
