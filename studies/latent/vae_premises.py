r"""The premises of VAE-Newton, measured: how far the encoder undoes the decoder, and where the
forms' directions point.

At the posterior mean z of a noisy digit's latent and the image x = D(z), with the dense Jacobians
J_D at z and J_E at x:

    round trip     |J_E J_D v - v| / |v|, for random v and for differences of other digits'
                   latents; 0 is a left inverse.
                   For the latter also the secant, |E(D(z + v)) - E(D(z)) - v| / |v|
    cosines        of each form's error of z with J_D^T e, J_D^+ e, and J_D^+ e with the
                   singular values of J_D below a tenth of the largest cut off, since they fall by
                   thousands; e is what the image's constraint wants
    loop           J_E P J_D, P what the constraint sees: by a step of VAE-Newton a change v of
                   z that is wanted becomes v - J_E P J_D v, to first order. An eigenvalue is 1 at
                   best, and v grows where its real part is negative; a norm far above the largest
                   |eigenvalue| tells of v that grow before they fall
    residual       of D(z + s d) against s, over that of D(z), for each form's d and for
                   d = J_D^+ e, cut off
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.constraints.decoded import Decoded, Form
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.constraints.observations import Map
from jacobian_lab.constraints.separable import shrink, super_resolution
from jacobian_lab.derivative.fallbacks import DoubleBackward, ForwardMode
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.krylov.least_squares import lstsq
from mnist.data import SHAPE
from mnist.evaluate import noisy_digit
from studies.frame.models import Model
from studies.frame.study import Arrays

FORMS: tuple[Form, ...] = get_args(Form)
VECTORS = ("random", "digits", "digits, secant")
REFERENCES = ("J_D^T e", "J_D^+ e", "J_D^+ e, cut off")
RCOND = 0.1
STEPS = np.linspace(0, 2, 21)
FACTOR = 4  # of super-resolution
RANDOM = 32  # random vectors
CHUNK = 64  # vectors that are differentiated at once


def enlarge(images: Tensor) -> LinearConstraint:
    """Return 4x super-resolution of digits."""
    return super_resolution(shrink(images, FACTOR), FACTOR)


def complete(images: Tensor) -> LinearConstraint:
    """Return inpainting of digits of which the left half is known."""
    return Inpainting(images, half(SHAPE))


MASKED = "half known"
TASKS: dict[str, Callable[[Tensor], LinearConstraint]] = {
    "4x super-resolution": enlarge,
    MASKED: complete,
}


def observed_images(images: Tensor) -> Arrays:
    """Return digits, and what is observed of them: the small images, and the left half."""
    known = torch.where(half(SHAPE).to(images.device), images, torch.nan)
    found = {"truth": images, "small": shrink(images, FACTOR), "known": known}
    return {key: value.cpu().numpy() for key, value in found.items()}


def premises(
    model: Model, image: Tensor, others: Tensor, t: int | float, seed: int, number: int
) -> Arrays:
    """Return what is measured at one noisy digit.

    Parameters
    ----------
    model : Model
    image : Tensor, shape (1, 32, 32)
        The digit, which the constraints are of.
    others : Tensor, shape (N, C, h, w)
        Other digits' latents; v is what leads from this digit's latent to one of theirs.
    t : int or float
        Noise level of the denoiser's schedule.
    seed, number : int
        Seeds of the noise.

    Returns
    -------
    dict
        "roundtrip" (3,), medians over v; "cosines" (tasks, forms, references); "by_step" (tasks,
        forms and J_D^+ e, steps); "singular_values" of J_D, falling; "loop" (tasks, 3): the largest
        |eigenvalue|, the norm, and how many of those above 5 % of it, by |eigenvalue|, have a
        negative real part, as a share.
    """
    with torch.no_grad():
        clean = model.encode(image[None])
        z = model.denoiser(noisy_digit(model.denoiser, clean[0], t, seed, number), t)
        x = model.decode(z)
        latent = model.encode(x)
        moved = model.encode(model.decode(z + others - clean)) - latent
    J_D, J_E = dense_decoder(model.decode, z), dense_encoder(model.encode, x)
    random = np.random.default_rng([seed, number]).standard_normal((RANDOM, J_D.shape[1]))
    digits, secant = (v.double().cpu().flatten(1).numpy() for v in (others - clean, moved))
    roundtrip = [
        _missed(random @ J_D.T @ J_E.T, random),
        _missed(digits @ J_D.T @ J_E.T, digits),
        _missed(secant, digits),
    ]
    cosines, by_step = zip(
        *(_towards(model, problem(image[None]), z, x, J_D) for problem in TASKS.values()),
        strict=True,
    )
    loops = [loop(problem(image[None]), J_D, J_E, x) for problem in TASKS.values()]
    return {
        "roundtrip": np.array(roundtrip),
        "cosines": np.stack(cosines),
        "by_step": np.stack(by_step),
        "singular_values": np.linalg.svd(J_D, compute_uv=False),
        "loop": np.array(loops),
    }


def loop(
    constraint: LinearConstraint, J_D: NDArray[np.float64], J_E: NDArray[np.float64], x: Tensor
) -> tuple[float, float, float]:
    """Return of J_E P J_D the largest |eigenvalue|, the norm, and the share of negative real parts;
    see `premises`.
    """
    columns = torch.from_numpy(J_D.T).to(x).reshape(-1, *x.shape[1:])
    product = J_E @ constraint.seen(columns).double().cpu().flatten(1).numpy().T
    values = np.linalg.eigvals(product)
    size = np.abs(values)
    seen = values[size > 0.05 * size.max()]
    return float(size.max()), float(np.linalg.norm(product, 2)), float(np.mean(seen.real < 0))


def _missed(found: NDArray[np.float64], v: NDArray[np.float64]) -> float:
    return float(np.median(np.linalg.norm(found - v, axis=1) / np.linalg.norm(v, axis=1)))


def _towards(
    model: Model, constraint: LinearConstraint, z: Tensor, x: Tensor, J_D: NDArray[np.float64]
) -> tuple[NDArray[Any], ...]:
    """Return the cosines and the residuals along the directions, for one constraint."""
    e = constraint.error(x)
    vector = e.double().cpu().flatten().numpy()
    cut_off = lstsq(J_D, vector, RCOND).x
    references = (J_D.T @ vector, lstsq(J_D, vector).x, cut_off)
    errors = [Decoded(constraint, model.encode, model.decode, form).error(z) for form in FORMS]
    directions = [error.double().cpu().flatten().numpy() for error in errors]
    cosines = np.array([[_cosine(d, reference) for reference in references] for d in directions])
    moves = torch.stack(
        [*(error[0] for error in errors), torch.from_numpy(cut_off).to(z).reshape(z.shape[1:])]
    )
    steps = torch.from_numpy(STEPS).to(z).reshape(-1, 1, 1, 1, 1)
    with torch.no_grad():
        found = constraint.residual(model.decode((z + steps * moves).flatten(0, 1))).reshape(
            len(STEPS), -1
        )
    return cosines, (found / found[0]).T.double().cpu().numpy()


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def dense_decoder(decode: Map, z: Tensor) -> NDArray[np.float64]:
    """Return J_D at one latent, (1, C, h, w): a matrix, (pixels, latents), by forward mode."""
    return _in_chunks(ForwardMode(decode, z).jvp, z).T


def dense_encoder(encode: Map, x: Tensor) -> NDArray[np.float64]:
    """Return J_E at one image, (1, c, H, W): a matrix, (latents, pixels), by reverse mode."""
    with torch.no_grad():
        latent = encode(x)
    return _in_chunks(DoubleBackward(encode, x).vjp, latent)


def _in_chunks(product: Map, at: Tensor) -> NDArray[np.float64]:
    """Return the products with the unit vectors of the space of `at`, row by row."""
    units = torch.eye(at.numel()).to(at).reshape(-1, *at.shape[1:])
    with differentiable():
        rows = [product(chunk).detach().flatten(1) for chunk in torch.split(units, CHUNK)]
    return torch.cat(rows).double().cpu().numpy()
