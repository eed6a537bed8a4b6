"""Constraints through a decoder, against a linear autoencoder whose inverse is known, and dense
Jacobians of a curved one.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mnist
from jacobian_lab import DiscreteSchedule, InputError
from jacobian_lab.constraints.decoded import Decoded, latent_inpainting, latent_mask
from jacobian_lab.constraints.linear import Inpainting, LinearMap
from jacobian_lab.constraints.losses import Loss
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.separable import shrink, super_resolution
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic

from conftest import NoGraph, make_mixture, relative

IMAGE, LATENT = (1, 8, 8), (3, 4, 4)


FORMS = ("backprop", "tangent", "secant")


class Flat:
    """D(z) = Q z + b, E(x) = Q^T (x - b), Q with orthonormal columns: E is the pseudo-inverse of
    D.
    """

    def __init__(self, image=IMAGE, latent=LATENT):
        g = torch.Generator().manual_seed(0)
        n, m = torch.Size(image).numel(), torch.Size(latent).numel()
        self.Q = torch.linalg.qr(torch.randn(n, m, generator=g, dtype=torch.float64))[0]
        self.b = torch.randn(n, generator=g, dtype=torch.float64)
        self.image, self.latent = image, latent
        self.calls = []

    def decode(self, z):
        self.calls.append("decode")
        return (z.flatten(1) @ self.Q.T + self.b).reshape(-1, *self.image)

    def encode(self, x):
        self.calls.append("encode")
        return ((x.flatten(1) - self.b) @ self.Q).reshape(-1, *self.latent)


class Curved:
    """A small convolutional autoencoder that was never trained: nothing is the inverse of
    anything.
    """

    def __init__(self):
        torch.manual_seed(0)
        self.down = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.GroupNorm(2, 6),
            nn.SiLU(),
            nn.Conv2d(6, 3, 2, stride=2),
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(3, 6, 2, stride=2),
            nn.GroupNorm(2, 6),
            nn.SiLU(),
            nn.Conv2d(6, 1, 3, padding=1),
        )
        for part in (self.down, self.up):
            part.double().eval().requires_grad_(False)

    def encode(self, x):
        return self.down(x)

    def decode(self, z):
        return self.up(z)


def normal(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problems(batch=2):
    """An inpainting and a super-resolution, each sample its own."""
    y = normal(batch, *IMAGE, seed=2)
    masks = torch.stack([half(IMAGE), half(IMAGE, "top")])[:batch]
    return {
        "inpainting": Inpainting(y, masks),
        "super-resolution": super_resolution(shrink(y, 2), 2),
    }


def jacobian(function, at):
    """The dense Jacobian at one sample, (m, n)."""
    return torch.func.jacrev(lambda x: function(x.reshape(1, *at.shape)).reshape(-1))(
        at.reshape(-1)
    )


def dense(map_, n, shape):
    """The matrix of a linear map of images, (n, n)."""
    return map_(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).flatten(1).T


@pytest.mark.parametrize("name", ["inpainting", "super-resolution"])
@pytest.mark.parametrize("form", ["tangent", "secant"])
def test_where_the_encoder_is_the_pseudo_inverse_both_forms_are_it(name, form):
    flat, z = Flat(), normal(2, *LATENT)
    constraint = problems()[name]
    e = constraint.error(flat.decode(z)).flatten(1)
    expected = torch.linalg.lstsq(flat.Q, e.T).solution.T.reshape(z.shape)
    assert relative(Decoded(constraint, flat.encode, flat.decode, form).error(z), expected) < 1e-7


@pytest.mark.parametrize("form", FORMS)
def test_an_image_that_the_decoder_can_draw_is_reached_in_one_step(form):
    flat, z, wanted = Flat(), normal(2, *LATENT), normal(2, *LATENT, seed=5)
    constraint = Decoded(
        Inpainting(flat.decode(wanted), torch.ones(IMAGE, dtype=torch.bool)),
        flat.encode,
        flat.decode,
        form,
    )
    assert constraint.residual(z).min() > 0.1
    assert relative(z + constraint.error(z), wanted) < 1e-7
    assert constraint.residual(z + constraint.error(z)).max() < 1e-7


@pytest.mark.parametrize("latent", [(48,), (6, 8), (1, 3, 4, 4)])
@pytest.mark.parametrize("form", FORMS)
def test_latents_may_be_of_any_rank(form, latent):
    """Steps of differences and of the line search were spread over the batch."""
    flat, other = Flat(), Flat(latent=latent)
    z = normal(2, *LATENT)
    for constraint in problems().values():
        expected = Decoded(constraint, flat.encode, flat.decode, form).error(z)
        found = Decoded(constraint, other.encode, other.decode, form).error(z.reshape(2, *latent))
        assert found.shape == (2, *latent)
        assert relative(found.reshape(z.shape), expected) < 1e-7


@pytest.mark.parametrize("name", ["inpainting", "super-resolution"])
def test_each_form_on_a_curved_autoencoder_is_what_its_dense_jacobians_say(name):
    curved, z = Curved(), normal(2, *LATENT)
    constraint = problems()[name]
    found = {
        form: Decoded(constraint, curved.encode, curved.decode, form).error(z) for form in FORMS
    }
    x = curved.decode(z)
    every = constraint.error(x)
    for k in range(2):
        J_D, J_E, e = (
            jacobian(curved.decode, z[k]),
            jacobian(curved.encode, x[k]),
            every[k].reshape(-1),
        )
        P = dense(constraint.select(slice(k, k + 1)).seen, 64, IMAGE)
        g = J_D.T @ e
        moved = P @ J_D @ g
        steps = torch.linspace(0, 2, 2001, dtype=torch.float64) * (g @ g) / (moved @ moved)
        best = steps[(e[:, None] - steps * moved[:, None]).norm(dim=0).argmin()]
        assert relative(found["backprop"][k].reshape(-1), best * g) < 2e-3  # the grid's
        assert relative(found["backprop"][k].reshape(-1), (moved @ e) / (moved @ moved) * g) < 1e-6
        assert relative(found["tangent"][k].reshape(-1), J_E @ e) < 1e-6
    assert relative(found["secant"], curved.encode(x + every) - curved.encode(x)) < 1e-12
    assert relative(found["secant"], found["tangent"]) > 1e-2  # h = 1 is not h -> 0 here


def test_a_loss_is_followed_through_the_decoder():
    curved, z = Curved(), normal(2, *LATENT)
    loss = Loss(lambda x: (x - 0.3).square().flatten(1).mean(1))
    constraint = Decoded(loss, curved.encode, curved.decode, "backprop")
    step = constraint.error(z)
    assert (constraint.residual(z + 0.1 * step) < constraint.residual(z)).all()
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss.function(curved.decode(leaf)).sum(), leaf)
    for k in range(2):
        cosine = -(step[k] * gradient[k]).sum() / step[k].norm() / gradient[k].norm()
        assert cosine > 1 - 1e-9


@pytest.mark.parametrize("form", FORMS)
def test_samples_of_a_batch_do_not_see_each_other_and_nothing_wanted_is_nothing_moved(form):
    curved, z = Curved(), normal(2, *LATENT)
    inpainting = problems()["inpainting"]
    both = Decoded(inpainting, curved.encode, curved.decode, form)
    alone = Decoded(inpainting.select(slice(1, 2)), curved.encode, curved.decode, form)
    assert relative(both.error(z)[1:], alone.error(z[1:])) < 1e-6
    assert torch.equal(both.select(torch.tensor([False, True])).error(z[1:]), alone.error(z[1:]))
    assert relative(both.residual(z), inpainting.residual(curved.decode(z))) == 0
    content = Decoded(Inpainting(curved.decode(z), half(IMAGE)), curved.encode, curved.decode, form)
    assert not content.error(z).any()


@pytest.mark.parametrize("name", ["inpainting", "super-resolution"])
@pytest.mark.parametrize("form", FORMS)
def test_vae_newton_makes_no_graph_and_back_propagation_does(form, name):
    curved, z = Curved(), normal(2, *LATENT)
    for part in (curved.up, curved.down):
        part.requires_grad_(True)  # not even where the weights would have one
    constraint = Decoded(problems()[name], curved.encode, curved.decode, form)
    saved = []
    keep = torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x)
    with torch.enable_grad(), keep, NoGraph() as mode:
        constraint.residual(z)
        error = constraint.error(z)
    assert mode.seen > 20
    assert (mode.graph > 0) == (len(saved) > 0) == (form == "backprop")
    assert not error.requires_grad
    assert error.grad_fn is None


@pytest.mark.parametrize(
    ("form", "passes"),
    [
        ("backprop", ["decode"] * 3),
        ("tangent", ["decode", "encode", "encode"]),
        ("secant", ["decode", "encode", "encode"]),
    ],
)
def test_a_step_costs_what_the_table_says_and_residual_and_error_share_a_decoded_image(
    form, passes
):
    flat, z = Flat(), normal(2, *LATENT)
    constraint = Decoded(problems()["inpainting"], flat.encode, flat.decode, form)
    before = constraint.residual(z)
    constraint.error(z)
    assert flat.calls == passes  # of the three decoded by backprop, one is the residual's
    z += 1  # in place: another image
    assert relative(constraint.residual(z), before) > 0.1
    with torch.inference_mode():
        inference = z.clone()
        there = constraint.residual(inference)
        inference -= 1
        assert relative(constraint.residual(inference), before) < 1e-12
        assert relative(there, before) > 0.1


@pytest.mark.parametrize("form", ["tangent", "secant"])
def test_the_sampler_takes_it_as_any_constraint(form):
    # its images are the latents here, and Q turns them
    mixture = make_mixture(DiscreteSchedule.linear())
    flat = Flat(mixture.shape, mixture.shape)
    known = torch.zeros(mixture.shape, dtype=torch.bool)
    known[..., :2] = True
    problem = Inpainting(flat.decode(mixture.sample(3, torch.Generator().manual_seed(0))), known)
    A = torch.eye(12, dtype=torch.float64)[known.reshape(-1)] @ flat.Q
    y = (problem.y.flatten(1) - flat.b)[:, known.reshape(-1)]
    same = LinearMap(
        y, lambda z: z.flatten(1) @ A.T, lambda u: (u @ A).reshape(-1, *mixture.shape), rtol=1e-12
    )
    denoiser, noise, ends = (
        mixture.denoiser(),
        seeded_noise(range(3), mixture.shape, dtype=torch.float64),
        [],
    )
    times, newton = denoiser.schedule.times(8), Newton("inexact", 2, Dynamic(0.5), "exact")
    for constraint in (Decoded(problem, flat.encode, flat.decode, form), same):
        *_, last = sample(denoiser, noise, times, constraint, newton)
        ends.append(last)
    assert relative(ends[0].x0, ends[1].x0) < 1e-5
    *_, free = sample(denoiser, noise, times)
    assert ends[0].residual.mean() < 0.5 * same.residual(free.x0).mean()


def test_compositing_leaves_known_pixels_to_the_bit_and_the_others_to_the_decoder():
    curved = Curved()
    z, y = normal(2, *LATENT).float(), normal(2, *IMAGE, seed=3).float()
    curved.up.float()
    known = torch.rand(IMAGE, generator=torch.Generator().manual_seed(0)) < 0.5
    constraint = Decoded(Inpainting(y, known), curved.encode, curved.decode, "secant")
    images = constraint.images(z, project=True)
    assert torch.equal(images[..., known[0]], y[..., known[0]])
    assert torch.equal(images[..., ~known[0]], curved.decode(z)[..., ~known[0]])
    assert torch.equal(constraint.images(z), curved.decode(z))
    with pytest.raises(InputError, match="would copy the noise"):
        Decoded(Inpainting(y, known, sigma=0.1), curved.encode, curved.decode, "secant").images(
            z, project=True
        )
    with pytest.raises(InputError, match=r"project the images, constraint.images"):
        constraint.project(z)


def test_a_latent_pixel_is_known_if_all_its_pixels_are():
    mask = torch.ones(2, 3, 8, 12, dtype=torch.bool)
    mask[0, 1, 5, 7] = False  # one pixel, of one channel
    mask[1, :, :, :5] = False
    found = latent_mask(mask, 4)
    expected = torch.ones(2, 1, 2, 3, dtype=torch.bool)
    expected[0, 0, 1, 1] = expected[1, 0, :, :2] = False
    assert torch.equal(found, expected)
    assert torch.equal(latent_mask(mask[0], 4), expected[0])
    assert torch.equal(latent_mask(mask[1, 0], 4), expected[1, 0])
    assert torch.equal(latent_mask(mask, 1), mask.all(1, keepdim=True))


def test_unknown_pixels_do_not_leak_into_known_latents():
    curved, y = Curved(), normal(2, *IMAGE)
    known = half(IMAGE)
    constraint = latent_inpainting(y, known, curved.encode)
    other = torch.where(known, y, normal(2, *IMAGE, seed=9))
    assert torch.equal(latent_inpainting(other, known, curved.encode).y, constraint.y)
    assert constraint.mask.shape == (2, *LATENT)
    assert constraint.mask[..., :2].all()
    assert not constraint.mask[..., 2:].any()
    whole = latent_inpainting(y, torch.ones(IMAGE, dtype=torch.bool), curved.encode)
    assert torch.equal(whole.y, curved.encode(y))


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        (
            lambda c, p: Decoded(p, c.encode, c.decode, "newton"),
            "unknown form 'newton': expected one of backprop",
        ),
        (
            lambda c, p: Decoded(p, lambda x: c.encode(x)[:, :1], c.decode, "tangent").error(
                normal(2, *LATENT)
            ),
            "must be of one autoencoder",
        ),
        (lambda c, p: latent_mask(torch.ones(1, 8, 8), 2), "must be boolean"),
        (
            lambda c, p: latent_mask(torch.ones(1, 8, 8, dtype=torch.bool), 3),
            "must divide the sides",
        ),
        (
            lambda c, p: latent_inpainting(
                normal(1, *IMAGE), torch.eye(8, dtype=torch.bool)[None], c.encode
            ),
            "no latent pixel of a sample has all of its pixels known",
        ),
    ],
)
def test_slips_are_named(slip, message):
    with pytest.raises(InputError, match=message):
        slip(Curved(), problems()["inpainting"])


SHAPE = (1, 32, 32)


@pytest.fixture(scope="module")
def digits():
    return mnist.digits("held-out")[0][:3]


class Autoencoder(nn.Module):
    """Two pixels to one; it overflows half precision, as some do, on its way."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def encode(self, x):
        return F.avg_pool2d(x * self.gain, 2) / self.gain

    def decode(self, z):
        return F.interpolate(z * self.gain, scale_factor=2) / self.gain


@pytest.mark.parametrize("form", ["secant", "tangent", "backprop"])
@pytest.mark.parametrize(
    ("dtype", "gain", "fine"),
    [
        (torch.float16, 1e5, False),
        (torch.float16, 1.0, True),
        (torch.bfloat16, 1e5, True),
        (torch.float32, 1e5, True),
    ],
)
def test_an_autoencoder_that_overflows_is_told_as_that(form, dtype, gain, fine, digits):
    vae, z = Autoencoder(gain), F.avg_pool2d(digits, 2).to(dtype)
    constraint = Decoded(Inpainting(digits.to(dtype), half(SHAPE)), vae.encode, vae.decode, form)
    for ask in (constraint.residual, constraint.error, constraint.images):
        if fine:
            assert ask(z).isfinite().all()
        else:
            with pytest.raises(
                InputError,
                match=r"the decoder made values that are not finite, in torch.float16, of 3 of 3 "
                r"samples.*overflows in half precision: load the model in float32",
            ):
                ask(z)


def test_an_encoder_that_overflows_is_told_as_that(digits):
    vae, plain, z = Autoencoder(1e5), Autoencoder(1.0), F.avg_pool2d(digits, 2).half()
    wanted = Inpainting(digits.half(), half(SHAPE))
    for call in (
        lambda: latent_inpainting(digits.half(), half(SHAPE), vae.encode),
        lambda: Decoded(wanted, vae.encode, plain.decode, "secant").error(z),
    ):
        with pytest.raises(InputError, match="the encoder made values that are not finite"):
            call()
    with torch.inference_mode(), pytest.raises(InputError, match="the decoder made values"):
        Decoded(wanted, vae.encode, vae.decode, "secant").residual(z.clone())
    # the sampler's
    assert (
        not Decoded(wanted, plain.encode, plain.decode, "secant")
        .residual(z * torch.nan)
        .isfinite()
        .any()
    )


def test_decoded_images_are_the_callers_own():
    wanted = Decoded(
        Inpainting(torch.zeros(1, 1, 8, 8), half((1, 8, 8))), lambda x: x, lambda z: z, "tangent"
    )
    z = torch.full((1, 1, 8, 8), 2.0)
    before = wanted.residual(z)
    wanted.images(z).zero_()
    assert torch.equal(wanted.residual(z), before)
