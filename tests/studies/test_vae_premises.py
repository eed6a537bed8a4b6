"""The premises of VAE-Newton: as computed by hand where they are known, and its Jacobians."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import Denoiser, DiscreteSchedule
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import shrink
from jacobian_lab.derivative.settings import MATH_ATTENTION
from jacobian_lab.sampling.sampler import seed_of, seeded_noise
from studies.frame.models import Model, open_model
from studies.latent.vae_premises import (
    STEPS,
    TASKS,
    dense_decoder,
    dense_encoder,
    loop,
    observed_images,
    premises,
)

from conftest import relative

LATENT = (4, 8, 8)


class Shrinking(torch.nn.Module):
    """Predicts that x_0 is half of x_t."""

    def forward(self, x, t):
        return x / 2


def flat_model():
    """A model whose decoder is linear with orthonormal columns and whose encoder is its
    pseudo-inverse, in float64.
    """
    Q = torch.linalg.qr(
        torch.randn(1024, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )[0]
    denoiser = Denoiser(Shrinking().double().eval(), DiscreteSchedule.linear(), "sample", LATENT)
    return Model(
        denoiser,
        (1, 32, 32),
        "cpu",
        torch.float64,
        "latent",
        lambda x: (x.flatten(1) @ Q).reshape(-1, *LATENT),
        lambda z: (z.flatten(1) @ Q.T).reshape(-1, 1, 32, 32),
    )


def test_the_premises_of_a_perfect_linear_autoencoder_are_met():
    model, images = flat_model(), mnist.digits("held-out")[0][:5].double()
    found = premises(model, images[3], model.encode(images[:2]), 400, 0, 3)
    np.testing.assert_allclose(found["roundtrip"], 0, atol=1e-12)
    np.testing.assert_allclose(found["cosines"], 1, atol=1e-10)
    np.testing.assert_allclose(found["singular_values"], 1)
    Q = dense_decoder(model.decode, torch.zeros(1, *LATENT, dtype=torch.float64))
    for k, problem in enumerate(TASKS.values()):
        constraint = problem(images[3:4])
        P = (
            constraint.seen(torch.eye(1024, dtype=torch.float64).reshape(-1, 1, 32, 32))
            .flatten(1)
            .numpy()
        )
        largest = np.linalg.eigvalsh(Q.T @ P @ Q)[-1]  # here symmetric, at most 1
        np.testing.assert_allclose(found["loop"][k], [largest, largest, 0], rtol=1e-9)
        noise = seeded_noise([seed_of(0, 3)], LATENT, dtype=torch.float64)
        x = model.decode(
            model.denoiser.schedule.add_noise(model.encode(images[3:4]), 400, noise) / 2
        )
        moved = model.decode(model.encode(constraint.error(x)))
        expected = [
            float(constraint.residual(x + s * moved) / constraint.residual(x)) for s in STEPS
        ]
        for form in (1, 2, 3):  # tangent, secant, J_D^+ e
            np.testing.assert_allclose(found["by_step"][k, form], expected, atol=1e-6)
        best = found["by_step"][k, 0, 10]  # exact line search ends at s = 1
        assert best == found["by_step"][k, 0].min() <= min(expected) + 1e-6


def test_the_dense_jacobians_are_those_of_jacrev():
    pytest.importorskip("diffusers")
    from mnist.latent import AUTOENCODER, build_autoencoder

    torch.manual_seed(0)
    autoencoder = (
        build_autoencoder(AUTOENCODER | {"block_out_channels": (8, 8, 8)})
        .double()
        .eval()
        .requires_grad_(False)
    )

    def decode(z):
        return autoencoder.decode(z).sample

    def encode(x):
        return autoencoder.encode(x).latent_dist.mode()

    z, x = (
        torch.randn(1, 4, 2, 2, dtype=torch.float64),
        torch.randn(1, 1, 8, 8, dtype=torch.float64),
    )
    with MATH_ATTENTION:  # attention by the kernel that has derivatives
        J_D, J_E = (
            torch.func.jacrev(function)(at).reshape(-1, at.numel())
            for function, at in ((decode, z), (encode, x))
        )
    assert relative(dense_decoder(decode, z), J_D) < 1e-10
    assert relative(dense_encoder(encode, x), J_E) < 1e-10


def test_the_loop_of_a_turn_by_more_than_a_right_angle_loses_what_it_wants():
    known = Inpainting(torch.zeros(1, 1, 1, 4, dtype=torch.float64), half((1, 1, 4)))
    turn = np.zeros((4, 2))
    angle = 2 * np.pi / 3
    turn[:2] = 0.5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn[2:] = 100  # of pixels that are not known
    found = loop(known, turn, np.eye(2, 4), torch.zeros(1, 1, 1, 4, dtype=torch.float64))
    np.testing.assert_allclose(found, [0.5, 0.5, 1], rtol=1e-12)
    sheared = np.eye(4, 2)
    sheared[0, 1] = 10.0
    largest, norm, negative = loop(
        known, sheared, np.eye(2, 4), torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    )
    assert largest == pytest.approx(1, rel=1e-6)
    assert norm == pytest.approx(np.linalg.norm([[1, 10], [0, 1]], 2))
    assert negative == 0


def test_what_is_observed_is_shown_as_the_tasks_see_it():
    images = mnist.digits("held-out")[0][:2]
    found = observed_images(images)
    np.testing.assert_array_equal(found["truth"], images)
    np.testing.assert_array_equal(found["small"], shrink(images, 4))
    np.testing.assert_array_equal(found["known"][..., :16], images[..., :16])
    assert np.isnan(found["known"][..., 16:]).all()
    assert all(float(task(images).residual(images).max()) < 1e-6 for task in TASKS.values())


@pytest.fixture(scope="module")
def shipped():
    pytest.importorskip("diffusers")
    return open_model("mnist-latent", "cpu")


class TestShipped:
    """Of the miniature that ships: VAE-Newton has ground to stand on."""

    def test_its_encoder_undoes_its_decoder(self, shipped):
        images = mnist.digits("held-out")[0]
        with torch.no_grad():
            others = shipped.encode(images[200:208])
        found = premises(shipped, images[0], others, 500, 0, 0)
        random, digits, secant = found["roundtrip"]
        assert random < 0.8
        assert digits < 0.3
        assert secant < 0.15
        largest, norm, negative = found["loop"].T
        assert (largest > 0.8).all()
        assert (norm < 1.5).all()  # nearly normal: what is wanted does not grow on the way
        assert (negative == 0).all()

    @pytest.mark.parametrize("form", ["tangent", "secant"])
    @pytest.mark.parametrize("task", TASKS)
    def test_its_steps_alone_lead_from_digit_to_digit(self, shipped, task, form):
        images = mnist.digits("held-out")[0]
        problem = TASKS[task](images[100:104])
        constraint = Decoded(problem, shipped.encode, shipped.decode, form)
        with torch.no_grad():
            z = shipped.encode(images[125:129])
        before = constraint.residual(z)
        for _ in range(15):
            z = z + 0.5 * constraint.error(z)
        assert (constraint.residual(z) < 0.25 * before).all()
