"""The audit names planted faults, and raises no alarm on healthy operators."""

import numpy as np
import pytest
import torch
from torch import nn

import mnist
from jacobian_lab import Denoiser, DiscreteSchedule, InputError, JacobianOperator, audit
from mnist.evaluate import noisy_digit

import networks
from conftest import PREDICTIONS, SCHEDULES, make_mixture

X = torch.randn(1, *networks.SHAPE, generator=torch.Generator().manual_seed(0))


inner = networks.Convolutional


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.tanh(2 * x)

    @staticmethod
    def backward(ctx, g):
        return g


class Fault(nn.Module):
    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.change, self.calls, self.mean = inner(), change, 0, 0.0

    def remember(self, x):
        self.mean = 0.9 * self.mean + 0.1 * float(x.mean())
        return self.mean

    def forward(self, x, t):
        self.calls += 1
        return self.change(self, x, t)


def half(self, x, t):
    return self.inner(x, t).half().float()


def autocast(self, x, t):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.inner(x, t).float()


def previous_time(self, x, t):
    before, self.before = getattr(self, "before", t), t
    return self.inner(x, t) * (1 + 0.01 * (before != t).float().mean())


def cached(self, x, t):
    if not hasattr(self, "features"):
        self.features = {}
    features = self.features.setdefault(int(t[0]), torch.tanh(x[:1]))
    return self.inner(x, t) + features


def scaled_backward(y, factor=0.999):
    return y.detach() + factor * (y - y.detach())


class RankOne(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.clone()

    @staticmethod
    def backward(ctx, g):
        a = torch.linspace(0.5, 1.5, g[0].numel()).reshape(g[:1].shape)
        return g + 0.01 * a * (g * a).flatten(1).sum(1).reshape(-1, 1, 1, 1) / a.square().sum()


def rank_one_backward(y):
    return RankOne.apply(y)


REFUSED = {
    "cache keyed on the time": cached,
    "constant with gradients": lambda s, x, t: s.inner(x, t) + 0.01 * x.requires_grad,
    "noise with gradients": (
        lambda s, x, t: s.inner(x, t) + 0.01 * x.requires_grad * torch.randn_like(x)
    ),
    "noise": lambda s, x, t: s.inner(x, t) + 0.01 * torch.randn_like(x),
    "small noise": lambda s, x, t: s.inner(x, t) + 1e-4 * torch.randn_like(x),
    "counter": lambda s, x, t: s.inner(x, t) * (1 + 0.001 * s.calls),
    "settles after four calls": lambda s, x, t: s.inner(x, t) * (1 + 0.01 * max(0, 4 - s.calls)),
    "running mean": lambda s, x, t: s.inner(x, t) + s.remember(x),
}


FAULTS = {
    "the time of the call before": (previous_time, "repeatable"),
    "input written to": (lambda s, x, t: s.inner(x.mul_(0.5), t), "input"),
    "backward times 0.999": (lambda s, x, t: scaled_backward(s.inner(x, t)), "autograd"),
    "rank-one error of 1 % in the backward": (
        lambda s, x, t: rank_one_backward(s.inner(x, t)),
        "autograd",
    ),
    "batch statistics": (
        lambda s, x, t: s.inner(x - x.mean(0, keepdim=True) / 2, t),
        "samples apart",
    ),
    "attention over the batch": (lambda s, x, t: s.inner(x, t) + x.flip(0), "samples apart"),
    "half precision": (half, "precision"),
    "autocast": (autocast, "precision"),
    "no_grad": (lambda s, x, t: torch.no_grad()(s.inner)(x, t), "autograd"),
    "detach": (lambda s, x, t: s.inner(x.detach(), t) + x, "autograd"),
    "part detached": (lambda s, x, t: s.inner(x, t) + torch.tanh(x.detach()), "autograd"),
    "straight through": (lambda s, x, t: s.inner(Straight.apply(x), t), "autograd"),
    "value read out": (
        lambda s, x, t: s.inner(x, t) + 0.02 * x * x.square().sum().item(),
        "derivative",
    ),
    "value read out for each sample": (
        lambda s, x, t: torch.stack([y / y.std().item() for y in s.inner(x, t)]),
        "derivative",
    ),
    "root at zero": (lambda s, x, t: s.inner(x, t) + (x - x.detach()).square().sqrt(), "autograd"),
    "quantised": (lambda s, x, t: torch.round(s.inner(x, t) * 8) / 8, "secant"),
}


def operator(network):
    return JacobianOperator(
        Denoiser(network.eval(), DiscreteSchedule.linear(), "v", networks.SHAPE), X, 300
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_is_no_function_is_refused(name):
    told = (
        r"something else each time|draws random numbers|derivative is another one at its next call"
    )
    with pytest.raises(InputError, match=told):
        operator(Fault(REFUSED[name]))


@pytest.mark.filterwarnings("ignore::jacobian_lab.errors.DerivativeWarning")
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(name):
    change, check = FAULTS[name]
    report = audit(operator(Fault(change)))
    assert not report
    assert not report[check].passed, str(report)
    assert "FAIL" in str(report)


HEALTHY = {
    "unet": networks.unet,
    "attention": networks.denoiser,
    "perceptron": lambda dtype: networks_of(
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 96),
            nn.GELU(),
            nn.LayerNorm(96),
            nn.Linear(96, 64),
            nn.Unflatten(1, networks.SHAPE),
        ),
        dtype,
    ),
    "kinks": lambda dtype: networks_of(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 1, 3, padding=1),
        ),
        dtype,
    ),
    "batch norm": lambda dtype: networks_of(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.SiLU(),
            nn.Conv2d(8, 8, 7, padding=3, groups=8),
            nn.Conv2d(8, 1, 1),
        ),
        dtype,
    ),
    "transformer": lambda dtype: networks_of(
        nn.Sequential(
            nn.Flatten(1, 2),
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"),
            nn.Unflatten(1, (1, 8)),
        ),
        dtype,
    ),
}


class Timeless(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, t):
        return self.inner(x)


def networks_of(inner, dtype):
    return (
        Denoiser(Timeless(inner), DiscreteSchedule.linear(), "v", networks.SHAPE).to(dtype).eval()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HEALTHY)
def test_no_alarm_on_healthy_architectures(name, dtype):
    torch.manual_seed(0)
    report = audit(JacobianOperator(HEALTHY[name](dtype=dtype), X.to(dtype), 300))
    assert report, str(report)


def test_a_transpose_at_the_neighbouring_time_is_found():
    denoiser = networks.unet(torch.float32)
    J = JacobianOperator(denoiser, X, 500)
    assert audit(J)
    J._apply_transpose = JacobianOperator(denoiser, X, 499)._apply_transpose
    failed = [check.name for check in audit(J).checks if not check.passed]
    assert failed == ["adjoint", "autograd"]


@pytest.mark.slow
@pytest.mark.parametrize("t", [100, 500, 900])
def test_a_shipped_model_passes_and_a_transpose_at_the_neighbouring_time_does_not(t):
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][3], t, 0)
    J = JacobianOperator(denoiser, x_t, t)
    report = audit(J)
    assert report, str(report)
    assert report.noise < 1e-3
    J._apply_transpose = JacobianOperator(denoiser, x_t, t - 1)._apply_transpose
    failed = [check.name for check in audit(J).checks if not check.passed]
    assert failed == ["adjoint", "autograd"]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_no_alarm_on_oracles(oracle_at, prediction):
    oracle, x_t, t = oracle_at
    report = audit(JacobianOperator(oracle.denoiser(prediction), x_t, t))
    assert report, str(report)
    assert np.isfinite(report.noise)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_no_alarm_on_oracles_near_the_clean_image(name, prediction):
    schedule, middle = SCHEDULES[name]
    t = 0.01 if isinstance(middle, float) else 1
    for seed in range(3):
        oracle, g = make_mixture(schedule, seed), torch.Generator().manual_seed(seed)
        noise = torch.randn(1, *oracle.shape, generator=g, dtype=torch.float64)
        x_t = schedule.add_noise(oracle.sample(1, g), t, noise)
        report = audit(JacobianOperator(oracle.denoiser(prediction), x_t, t))
        assert report, str(report)


def test_no_alarm_at_a_tiny_sample():
    J = JacobianOperator(networks.unet(torch.float32), 1e-7 * X, 300)
    assert audit(J), str(audit(J))


@pytest.mark.slow
def test_negative_posterior_variances_are_counted():
    denoiser = mnist.load_denoiser()
    J = JacobianOperator(
        denoiser, noisy_digit(denoiser, mnist.digits("held-out")[0][3], 100, 0), 100
    )
    dense = J.dense()
    negative = int((dense.diagonal() < -J.product_error * np.linalg.norm(dense, axis=0)).sum())
    assert negative > 100
    assert f"at least {negative} of 1,024 posterior variances" in str(audit(J))


@pytest.mark.parametrize("n", [900, 1300])
def test_only_variances_that_are_negative_are_noted(n):
    """Beyond 1,024 they are estimated: n estimates have outliers, of which none may be told."""
    g = torch.Generator().manual_seed(0)
    root = torch.randn(n, n // 2, generator=g)
    covariance = root @ root.T / n  # positive semi-definite
    shape, x = (n,), torch.randn(1, n, generator=g)

    def operator(A):
        denoiser = Denoiser(lambda x, t: x @ A.T, DiscreteSchedule.linear(), "sample", shape)
        return JacobianOperator(denoiser, x, 300)

    assert "posterior variances" not in str(audit(operator(covariance)))
    covariance[torch.arange(7), torch.arange(7)] = -3.0
    assert f"at least 7 of {n:,} posterior variances" in str(audit(operator(covariance)))


@pytest.mark.filterwarnings("ignore::jacobian_lab.errors.DerivativeWarning")
def test_a_mean_over_the_points_is_not_held_against_j():
    def forward(x, _t):
        return 3 * float(x.detach().mean()) * x.sin()

    model = Denoiser(forward, DiscreteSchedule.linear(), "sample", (1, 4, 4))
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    checks = {check.name: check.passed for check in audit(JacobianOperator(model, x, 500)).checks}
    assert checks["differences"]
    assert not checks["samples apart"]
