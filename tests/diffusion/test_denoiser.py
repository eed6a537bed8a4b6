import pytest
import torch
from torch import nn

from jacobian_lab import (
    EDM,
    Denoiser,
    DiscreteSchedule,
    InputError,
    RectifiedFlow,
    VarianceExploding,
    guided,
)
from jacobian_lab.diffusion.schedule import per_sample

from conftest import PREDICTIONS, SHAPE, relative


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_type_gives_the_oracles_posterior_mean(oracle_at, prediction):
    oracle, x_t, t = oracle_at
    assert relative(oracle.denoiser(prediction)(x_t, t), oracle.mean(x_t, t)) < 1e-12


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_knows_the_answer_gives_it(schedule_and_time, prediction):
    """Definitions, not coefficients: the raw output is built from x0 and noise by what each type is
    said to estimate.
    """
    schedule, t = schedule_and_time
    x0, noise = torch.randn(2, 5, *SHAPE, dtype=torch.float64)
    a, s = (float(c) for c in schedule(t))
    raw = {"epsilon": noise, "v": a * noise - s * x0, "sample": x0, "flow": noise - x0}[prediction]
    denoiser = Denoiser(lambda x, t: raw, schedule, prediction, SHAPE)
    x_t = schedule.add_noise(x0, t, noise)
    assert relative(denoiser(x_t, t), x0) < 1e-12
    assert relative(denoiser.raw(x0, x_t, t), raw) < 1e-12
    assert relative(denoiser.noise(x_t, x0, t), noise) < 1e-12


def test_single_samples_and_batches_agree_and_keep_shape_and_dtype():
    denoiser = Denoiser(
        lambda x, t: x * t.view(-1, 1, 1, 1), DiscreteSchedule.linear(), "epsilon", SHAPE
    )
    x = torch.randn(3, *SHAPE)
    t = torch.tensor([1, 5, 9])
    batch = denoiser(x, t)
    assert batch.shape == x.shape
    assert batch.dtype == torch.float32
    for i in range(3):
        torch.testing.assert_close(denoiser(x[i], int(t[i])), batch[i], rtol=0, atol=0)


def test_the_network_sees_times_of_the_contract():
    seen = []

    def network(x, t):
        seen.append(t)
        return x

    Denoiser(network, DiscreteSchedule.linear(), "v", SHAPE)(torch.zeros(2, *SHAPE), 7)
    Denoiser(network, RectifiedFlow(), "flow", SHAPE)(
        torch.zeros(2, *SHAPE, dtype=torch.float64), 0.3
    )
    assert seen[0].tolist() == [7, 7]
    assert seen[0].dtype == torch.int64
    assert seen[1].tolist() == [0.3, 0.3]
    assert seen[1].dtype == torch.float64


def test_denoiser_runs_on_the_meta_device():
    """Nothing inside makes a tensor on a device of its own choice."""
    denoiser = Denoiser(nn.Identity(), DiscreteSchedule.linear(), "sample", SHAPE)
    denoiser.network.forward = lambda x, t: x
    assert denoiser(torch.zeros(2, *SHAPE, device="meta"), 7).device.type == "meta"


def test_wrapping_leaves_the_modes_of_the_network_alone():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout().eval())
    Denoiser(guided(network, network, 2.0), DiscreteSchedule.linear(), "v", SHAPE)
    assert network.training
    assert not network[1].training
    network = nn.Sequential(nn.Dropout()).eval()
    network[0].train()
    Denoiser(network, DiscreteSchedule.linear(), "v", SHAPE)
    assert network[0].training


@pytest.mark.parametrize("shape", [(3, 4), (2, 1, 3, 5), (1, 1, 1, 3, 4), (1, 4, 3)])
def test_wrong_image_shapes_are_named(shape):
    denoiser = Denoiser(lambda x, t: x, DiscreteSchedule.linear(), "v", SHAPE)
    with pytest.raises(InputError, match=r"expected \(B, 1, 3, 4\) or \(1, 3, 4\)"):
        denoiser(torch.zeros(shape), 3)


def test_a_network_that_returns_another_shape_is_named():
    denoiser = Denoiser(lambda x, t: torch.cat([x, x], 1), DiscreteSchedule.linear(), "v", SHAPE)
    with pytest.raises(InputError, match="learns a variance"):
        denoiser(torch.zeros(2, *SHAPE), 3)


def test_constructor_and_noise_prediction_at_pure_noise_refuse():
    with pytest.raises(InputError, match="unknown prediction 'eps'"):
        Denoiser(lambda x, t: x, DiscreteSchedule.linear(), "eps", SHAPE)
    with pytest.raises(InputError, match="shape must be positive integers"):
        Denoiser(lambda x, t: x, DiscreteSchedule.linear(), "v", (32, 0))
    with pytest.raises(InputError, match="alpha_t = 0"):
        Denoiser(lambda x, t: x, RectifiedFlow(), "epsilon", SHAPE)(torch.zeros(SHAPE), 1.0)
    with pytest.raises(InputError, match="expected 2 times"):
        Denoiser(lambda x, t: x, RectifiedFlow(), "flow", SHAPE)(
            torch.zeros(2, *SHAPE), torch.tensor([0.1, 0.2, 0.3])
        )


def test_another_precision_and_other_kinds_of_array_are_named():
    denoiser = Denoiser(
        nn.Conv2d(SHAPE[0], SHAPE[0], 3, padding=1), DiscreteSchedule.linear(), "v", SHAPE
    )
    denoiser.network.forward = lambda x, t: nn.Conv2d.forward(denoiser.network, x)
    with pytest.raises(
        InputError,
        match=r"x_t is torch.float64, the network's weights are torch.float32: convert one of them",
    ):
        denoiser(torch.zeros(1, *SHAPE, dtype=torch.float64), 7)
    with pytest.raises(InputError, match="floating-point tensor: got a numpy array"):
        denoiser(torch.zeros(1, *SHAPE).numpy(), 7)
    with pytest.raises(InputError, match=r"floating-point tensor: got a tensor of int64"):
        denoiser(torch.zeros(1, *SHAPE).long(), 7)


def test_a_denoiser_prints_as_one_line():
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    made = Denoiser(layer, RectifiedFlow(), "flow", (1, 8, 8))
    assert repr(made) == "Denoiser(Conv2d of 10 weights, RectifiedFlow(), 'flow', (1, 8, 8))"
    made = Denoiser(torch.sin, RectifiedFlow(), "flow", (1, 8, 8))
    assert repr(made) == "Denoiser(sin, RectifiedFlow(), 'flow', (1, 8, 8))"


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_coefficients_stay_numbers_on_the_host_and_nothing_is_waited_for(prediction, flow):
    """On a device without values, to ask for one is an error."""
    schedule = RectifiedFlow() if flow else DiscreteSchedule.linear()
    t = schedule.times(3)[1]
    asked = []
    denoiser = Denoiser(lambda x, t: (asked.append(t), 0.5 * x)[1], schedule, prediction, (1, 4, 4))
    x = torch.empty(2, 1, 4, 4, device="meta")
    assert [c.device.type for c in denoiser.coefficients(x, t)] == ["cpu", "cpu"]
    assert denoiser(x, t).device.type == denoiser.noise(x, x, t).device.type == "meta"
    assert asked[0].device.type == "meta"
    each = schedule(torch.tensor([t, t]))[0]
    assert per_sample(each, x).device.type == "meta"  # a number for each sample moves


@pytest.mark.filterwarnings("default::FutureWarning")  # PyTorch's own, in its linearize
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow", "score"])
def test_a_denoiser_can_be_traced(prediction):
    """PyTorch's own linearisation traces it, and so do compilers: nothing reads a number out."""
    network = nn.Conv2d(1, 1, 3, padding=1)
    denoiser = Denoiser(
        lambda x, t: network(x).tanh(), DiscreteSchedule.linear(), prediction, (1, 4, 4)
    ).requires_grad_(False)
    x, v = torch.randn(2, 1, 1, 4, 4).unbind()
    expected = torch.func.jvp(lambda x: denoiser(x, 500), (x,), (v,))[1]
    found = torch.func.linearize(lambda x: denoiser(x, 500), x)[1](v)
    assert relative(found, expected) < 1e-6


def test_noise_of_another_shape_is_named():
    denoiser = Denoiser(nn.Identity(), DiscreteSchedule.linear(), "v", SHAPE)
    with pytest.raises(InputError, match=r"noise has shape \(2, 3\)"):
        denoiser.add_noise(torch.zeros(1, *SHAPE), 5, torch.zeros(2, 3))


def test_coefficients_that_are_not_finite_are_told():
    score = Denoiser(lambda x, t: -x, VarianceExploding(1000.0), "score", (3,))
    x = torch.ones(1, 3)
    assert score(x.bfloat16(), 500.0).isfinite().all()
    with pytest.raises(InputError, match=r"not finite at t = 500.0 in torch.float16: c_x is 1.0"):
        score(x.half(), 500.0)


def test_what_the_network_is_fed_is_finite():
    class Late(EDM):
        def __call__(self, t, alpha_t, sigma_t):
            return super().__call__(t, alpha_t, sigma_t)._replace(time=(1 - sigma_t).log())

    denoiser = Denoiser(lambda x, t: x, VarianceExploding(5.0), Late(), (3,))
    assert denoiser(torch.ones(1, 3), 0.5).isfinite().all()
    with pytest.raises(InputError, match=r"is fed is not finite at t = 2\.0"):
        denoiser(torch.ones(1, 3), 2.0)


def test_a_clean_time_has_no_noise_to_tell():
    schedule = DiscreteSchedule(torch.tensor([1.0, 0.5, 0.1]))
    x, D = torch.ones(1, 3), Denoiser(lambda x, t: 0.1 * x, schedule, "v", (3,))
    assert torch.equal(D(x, 0), x)
    with pytest.raises(InputError, match="it has no noise"):
        D.noise(x, x, 0)
    with pytest.raises(InputError, match="does not enter D at t = 0"):
        D.raw(x, x, 0)
    with pytest.raises(InputError, match="where alpha_t or sigma_t is 0"):
        Denoiser(lambda x, t: x, schedule, EDM(), (3,))(x, 0)


def test_an_output_of_another_batch_is_told_by_its_likely_cause():
    conditions = torch.randn(2, 4)
    D = Denoiser(lambda x, t: x * conditions, DiscreteSchedule.linear(), "v", (4,))
    assert D(torch.ones(2, 4), 5).shape == (2, 4)
    with pytest.raises(InputError, match="Does it hold conditions, such as labels"):
        D(torch.ones(1, 4), 5)
