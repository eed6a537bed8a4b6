"""The penalties are, in the mean, what the closed form of J says."""

import pytest
import torch
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule
from mnist.tasks import denoising_loss
from studies.claims import regularisers
from studies.claims.regularisers import contracting_loss, raw_error, shifted_loss, symmetric_loss

SCHEDULE, N = DiscreteSchedule.linear(), 6


class Linear(nn.Module):
    """x_0 is predicted as A x: J is A at all times."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.A = nn.Parameter(0.3 * torch.randn(N, N, generator=g, dtype=torch.float64))

    def forward(self, x, t):
        return (x.flatten(1) @ self.A.T).reshape(x.shape)


@pytest.fixture
def denoiser():
    return Denoiser(Linear(), SCHEDULE, "sample", (1, 1, N))


@pytest.fixture
def images():
    g = torch.Generator().manual_seed(1)
    return torch.randn(20_000, 1, 1, N, generator=g, dtype=torch.float64)


def value(loss, denoiser, images):
    torch.manual_seed(7)
    return loss(denoiser.network, images, None)


def test_the_penalties_are_frobenius_norms(denoiser, images, monkeypatch):
    monkeypatch.setattr(
        torch, "randn", lambda shape, base=torch.randn: base(shape, dtype=torch.float64)
    )
    A = denoiser.network.A.detach()
    plain = value(denoising_loss(denoiser), denoiser, images)
    for penalised, matrix in ((contracting_loss, A), (symmetric_loss, A - A.T)):
        found = value(penalised(denoiser, 2.0), denoiser, images) - plain
        expected = 2 * matrix.square().sum() / N
        torch.testing.assert_close(found, expected, rtol=0.03, atol=0)


def test_the_shift_is_along_the_error(denoiser, images, monkeypatch):
    x_t, t = regularisers.noised(denoiser, images)
    monkeypatch.setattr(regularisers, "noised", lambda *_: (x_t, t))
    A, s = denoiser.network.A.detach(), -0.4
    error = (denoiser(x_t, t) - images).flatten(1)
    alpha = SCHEDULE(t)[0].reshape(-1, 1)
    moved = error + s * alpha * error @ A.T
    expected = (error.square().mean() + moved.square().mean()) / 2
    torch.testing.assert_close(value(shifted_loss(denoiser, s), denoiser, images), expected)
    still = value(shifted_loss(denoiser, 0.0), denoiser, images)
    torch.testing.assert_close(still, error.square().mean())


def test_they_have_gradients_and_the_error_is_that_of_the_raw_output(denoiser, images):
    few = images[:50]
    for penalised in (contracting_loss, symmetric_loss, shifted_loss):
        denoiser.zero_grad()
        value(penalised(denoiser, 0.5), denoiser, few).backward()
        assert denoiser.network.A.grad.abs().min() > 0
    v = Denoiser(Linear(), SCHEDULE, "v", (1, 1, N))
    x_t, t = regularisers.noised(v, few)
    raw = v.network(x_t, t) - v.raw(few, x_t, t)
    found = raw_error(v, v(x_t, t), few, x_t, t)
    torch.testing.assert_close(found, raw.square().mean())
