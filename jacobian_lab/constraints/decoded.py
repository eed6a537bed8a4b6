r"""Constraints of latents, made of constraints of images: the decoded latent D(z) shall fulfil what
is asked of an image.

The error of a latent is, as far as a form can tell, the smallest change of z that gives D(z) the
change e that the image's constraint wants (`jacobian_lab.constraints.base`). J_D and J_E are the
Jacobians of the decoder D at z and of the encoder E at D(z), P what the constraint sees:

    form         error of z                                passes of the autoencoder
    "backprop"   s J_D^T e, s = <P J_D g, e> / |P J_D g|^2  D with its graph, back through it, D
                 with g = J_D^T e: exact line search
    "tangent"    (E(D(z) + h e) - E(D(z))) / h, h small    D, E, E, no graph
    "secant"     E(D(z) + e) - E(D(z)): h = 1              D, E, E, no graph

"backprop" does not meet e, but makes what is missing as small as it gets along this line.

The last two are VAE-Newton, J_E e with J_E in place of J_D^+: where E inverts D, J_E J_D = 1, and
they fulfil to first order what an image that D can draw may fulfil; where E undoes D badly, nothing
is guaranteed. The Newton step of the denoiser does the rest (`jacobian_lab.sampling.newton`):
nothing here knows a denoiser or a time.

For inpainting there is a way without the decoder, `latent_inpainting`: latent pixels whose pixels
are all known are known.

References
----------
Graikos, Jojic, Samaras (2025), *Fast constrained sampling in pre-trained diffusion models*, arXiv
2410.18804.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.observations import Map, widened
from jacobian_lab.derivative.fallbacks import Differences
from jacobian_lab.errors import InputError

Form: TypeAlias = Literal["backprop", "tangent", "secant"]


class Decoded(Constraint):
    """A constraint of latents z, (B, *shape), such as (B, C, h, w): what `constraint` asks of the
    images D(z), (B, c, H, W).

    Parameters
    ----------
    constraint : Constraint
        What is asked of images in [-1, 1]: `Inpainting`, `super_resolution`, a `Loss`, a sum. A
        loss has a graph of its own network in every form; the other constraints have none.
    encode, decode : callable
        E and D, such as `Latent.encode` and `Latent.decode`: each sample by itself. "backprop"
        differentiates D.
    form : {"backprop", "tangent", "secant"}

    Raises
    ------
    InputError
        If the form is unknown.
    """

    def __init__(self, constraint: Constraint, encode: Map, decode: Map, form: Form) -> None:
        if form not in get_args(Form):
            raise InputError(f"unknown form {form!r}: expected one of {', '.join(get_args(Form))}")
        self.constraint, self.encode, self.decode, self.form = constraint, encode, decode, form
        self._latest: tuple[Tensor, int, Tensor] | None = None

    @torch.no_grad()
    def error(self, z: Tensor) -> Tensor:
        """Return the change wanted in z, of its shape."""
        if self.form == "backprop":
            return self._line_search(z)
        x = self.images(z)
        e = self.constraint.error(x)
        latent = self._latents(x, z)
        if self.form == "tangent":
            return Differences(self.encode, x, "forward", value=latent).jvp(e)
        return self._latents(x + e, z) - latent

    @torch.no_grad()
    def residual(self, z: Tensor) -> Tensor:
        """Return how much D(z) misses, shape (B,), in the unit of the images' constraint."""
        return self.constraint.residual(self.images(z))

    @torch.no_grad()
    def images(self, z: Tensor, project: bool = False) -> Tensor:
        """Return D(z), (B, c, H, W), not clamped.

        Parameters
        ----------
        project : bool
            Move it to the nearest images that fulfil the constraint. For `Inpainting` that is
            compositing: known pixels are those observed, to the bit, and the others stay as they
            are.
        """
        x = self._decoded(z)
        return self.constraint.project(x) if project else x.clone()  # the caller may write into it

    def project(self, x0: Tensor) -> Tensor:
        """Refuse: nothing that is known of pixels is exact in latents."""
        raise InputError(
            f"latents, {tuple(x0.shape)}, have no exact projection: project the images, "
            "constraint.images(z, project=True)"
        )

    def select(self, index: Tensor) -> Decoded:
        """Return the constraint of some of the latents, by a boolean index, (B,)."""
        return Decoded(self.constraint.select(index), self.encode, self.decode, self.form)

    def _decoded(self, z: Tensor) -> Tensor:
        """Return D(z), decoded once: a sampler asks for the residual and then for the error of one
        z.
        """
        if z.is_inference():  # would not tell whether it was changed since
            return checked(self.decode(z), z, "decoder")
        if self._latest is None or self._latest[0] is not z or self._latest[1] != z._version:
            self._latest = z, z._version, checked(self.decode(z), z, "decoder")
        return self._latest[2]

    def _line_search(self, z: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = (z.clone() if z.is_inference() else z.detach()).requires_grad_()
            x = checked(self.decode(leaf), z, "decoder")
            e = self.constraint.error(x.detach())
            (g,) = torch.autograd.grad(x, leaf, e)  # frees each activation once it is used
        checked(g, e, "decoder's gradient")
        x = x.detach()  # and what was left of the graph
        moved = self.constraint.seen(
            Differences(self.decode, leaf.detach(), "forward", value=x).jvp(g)
        )
        moved, e = widened(moved), widened(e)
        size = moved.flatten(1).square().sum(1)
        s = torch.where(
            size > 0,
            (moved * e).flatten(1).sum(1) / size.clamp(min=torch.finfo(size.dtype).tiny),
            0,
        )
        return (s.reshape(-1, *[1] * (g.ndim - 1)) * g).to(z)

    def _latents(self, x: Tensor, z: Tensor) -> Tensor:
        found = checked(self.encode(x), x, "encoder")
        if found.shape != z.shape:
            raise InputError(
                f"encode made latents of shape {tuple(found.shape)} of the images of"
                f" {tuple(z.shape)}: expected the same shape; encode and decode must be of one"
                " autoencoder"
            )
        return found


def latent_inpainting(y: Tensor, mask: Tensor, encode: Map) -> Inpainting:
    """Return the constraint that latents be those of y where all pixels of a latent pixel are
    known; it needs no decoder.

    Unknown pixels do not leak: before y is encoded they are filled with the mean of the known ones
    of their channel. The encoder sees further than a latent pixel, with attention the whole image,
    so that the latents, most of all next to the mask's edge, are those of the filled image; only
    `Decoded(Inpainting(y, mask), ...)` is exact about the edge, and about latent pixels that are
    known in part.

    Parameters
    ----------
    y : Tensor, shape (B, c, H, W) or (1, c, H, W)
        Images in [-1, 1]; what the mask does not mark is ignored.
    mask : Tensor of bool, shape (c or 1, H, W) or (B, c or 1, H, W)
        True where a pixel is known.
    encode : callable
        Images to latents, (B, C, h, w).

    Raises
    ------
    InputError
        If no latent pixel of a sample has all of its pixels known.
    """
    known = Inpainting(y, mask)
    count = known.mask.sum((2, 3), keepdim=True)
    mean = (known.y.double().sum((2, 3), keepdim=True) / count.clamp(min=1)).to(known.y)
    with torch.no_grad():
        latents = checked(encode(torch.where(known.mask, known.y, mean)), known.y, "encoder")
    kept = latent_mask(known.mask, y.shape[-1] // latents.shape[-1])
    if not kept.flatten(1).any(1).all():
        raise InputError(
            "no latent pixel of a sample has all of its pixels known: take Decoded(Inpainting(y,"
            " mask), encode, decode, ...), to which each known pixel counts"
        )
    return Inpainting(latents, kept)


def checked(value: Tensor, of: Tensor, what: str) -> Tensor:
    """Return what an autoencoder made of a batch, or raise if it overflowed: not finite where what
    it was given is finite.

    Parameters
    ----------
    value : Tensor, shape (B, ...)
        What the autoencoder made.
    of : Tensor, shape (B, ...)
        What it was given.
    what : str
        The part that made it, for the message, such as "encoder".
    """
    bad = ~value.flatten(1).isfinite().all(1) & of.flatten(1).isfinite().all(1)
    if bad.any():
        half = value.dtype in (torch.float16, torch.bfloat16)
        remedy = (
            "it overflows in half precision: load the model in float32, or bfloat16, whose range is"
            " float32's"
            if half
            else "look at the weights, and whether these are latents as it knows them"
        )
        raise InputError(
            f"the {what} made values that are not finite, in {value.dtype}, of {int(bad.sum())} of"
            f" {len(bad)} samples that are finite, at most {float(of[bad].abs().max()):.3g}:"
            f" {remedy}"
        )
    return value


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """Return the mask of latent pixels, True where all of their pixels, in all channels, are known.

    Parameters
    ----------
    mask : Tensor of bool, shape (H, W), (c, H, W) or (B, c, H, W)
        True where a pixel is known.
    factor : int
        Pixels per latent pixel in each direction, which divides H and W.

    Returns
    -------
    Tensor of bool, shape (H / factor, W / factor), with 1 in place of c
    """
    if mask.dtype != torch.bool:
        raise InputError(
            f"the mask must be boolean, True where a pixel is known: got {mask.dtype}; write mask"
            " > 0.5"
        )
    if mask.ndim < 2 or factor < 1 or any(side % factor for side in mask.shape[-2:]):
        raise InputError(
            f"the factor must divide the sides of the mask: got {factor} and a mask of shape"
            f" {tuple(mask.shape)}"
        )
    known = mask if mask.ndim == 2 else mask.all(-3, keepdim=True)
    height, width = mask.shape[-2:]
    tiles = known.reshape(*known.shape[:-2], height // factor, factor, width // factor, factor)
    return tiles.all(-1).all(-2)
