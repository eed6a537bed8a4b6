"""What the studies of constrained sampling share: options, sampling in pieces, in pixels or
latents.

What is wanted is always wanted of images. For a model of latents it goes in through the
autoencoder, by `Constrained.carried`, and `sample_images` decodes what comes out; the sampler and
its Newton step are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from jacobian_lab import Denoiser, InputError, _require
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.decoded import Decoded, checked, latent_inpainting
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.sampling.newton import Kind, Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, Secant, StepSize
from studies.frame.answer import Row
from studies.frame.models import Model, is_of_digits, may_be_of_digits
from studies.frame.options import Guided, model_files
from studies.frame.study import Arrays, Pieces

BATCH, PIXELS = 50, 50 * 32 * 32
"""Most samples that are drawn together, and most pixels: one large image at a time."""
Rule = Literal["secant", "dynamic"]
Through = Literal["secant", "tangent", "backprop", "latents"]


@dataclass(frozen=True)
class Constrained(Guided):
    """Options of a study of constrained sampling."""

    through: Through = "secant"
    """Of a latent model: how the change wanted of pixels becomes one of the latent. By differences
    of the encoder, "secant" or "tangent" (VAE-Newton, no graph); "backprop" through the decoder;
    "latents", of masks only: latents are known where all their pixels are, and no decoder is asked.
    """
    samples: int = 3
    """Samples, each from noise of its own."""
    steps: int = 20
    """Sampling times, evenly spaced."""
    last_of: int = 100
    """Where they end: at the last of this many, 100 at 1 % of the way; with the number of --steps,
    one more would be clean.
    """
    newton_steps: int = 5
    """Newton steps at each time."""
    direction: Kind = "inexact"
    """Of a Newton step: inexact J e, gradient J^T e, exact J^+ e (slow: the dense J of each
    sample), krylov, identity e.
    """
    change: float = 0.2
    """Largest change of a pixel of x_t, or of a number of a noisy latent, in a Newton step; pixels
    are in [-1, 1], latents have unit variance.
    """
    rule: Rule = "secant"
    """Size of a Newton step: the paper's "dynamic" always moves a pixel by --change, "secant"
    brakes where the goal is near.
    """
    tolerance: float = 0.0
    """A sample takes no more Newton steps at a time, and costs no more passes, once its residual
    (of known pixels their RMSE) is at most that; 0: all take all steps.
    """
    eta: float = 1.0
    """Share of fresh noise at each time, from 0 (DDIM) to 1 (DDPM's ancestral sampling)."""
    temperature: float | None = None
    """Factor of all noise, from 0 to 1: less than 1 for likely images rather than fair samples. By
    default 1, and 0.5 where inpaint and superres take mnist-latent.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or self.steps < 1 or self.last_of < 1 or self.newton_steps < 1:
            raise InputError(
                "--samples, --steps, --last-of and --newton-steps must be at least 1: got "
                f"{self.samples}, {self.steps}, {self.last_of}, {self.newton_steps}"
            )
        if not self.change > 0:
            raise InputError(f"--change must be positive: got {self.change}")
        _require.real("--tolerance", self.tolerance, "[0, inf)")
        if not 0 <= self.eta <= 1:
            raise InputError(f"--eta must lie from 0 to 1: got {self.eta}")
        if not 0 <= self.noise_factor() <= 1:
            raise InputError(f"--temperature must lie from 0 to 1: got {self.temperature}")
        if self.rule == "secant" and self.direction in ("exact", "krylov"):
            raise InputError(
                f"--rule secant takes g for J e, and would brake --direction {self.direction}"
                " wrongly: add --rule dynamic"
            )
        if is_of_digits(self.model):
            self._refuse_unless_default("through")
        if self.through == "latents" and not self.has_mask:
            raise InputError(
                "--through latents is for masks, of the study inpaint: latents are known where all"
                " their pixels are. Take secant, tangent or backprop"
            )

    def noise_factor(self) -> float:
        """Return the factor of all noise."""
        return 1.0 if self.temperature is None else self.temperature

    @property
    def has_mask(self) -> bool:
        """Whether what is wanted are known pixels."""
        return False

    def newton(self) -> Newton:
        """Return how the sampler takes its Newton steps."""
        rule: StepSize = Secant(self.change) if self.rule == "secant" else Dynamic(self.change)
        return Newton(self.direction, self.newton_steps, rule, tolerance=self.tolerance)

    def load(self, device: str | None = None, dtype: torch.dtype = torch.float32) -> Model:
        """Return the model; raise, before anything is read or computed, if its schedule has not as
        many times.
        """
        model = super().load(device, dtype)
        self.times(model.denoiser)
        return model

    def times(self, denoiser: Denoiser) -> list[int] | list[float]:
        """Return the sampling times."""
        schedule = denoiser.schedule
        return schedule.times(self.steps, schedule.times(max(self.steps, self.last_of))[-1])

    def noise_seeds(self) -> list[int]:
        """Return the seeds of `samples` different noises."""
        return [seed_of(self.seed, k) for k in range(self.samples)]

    def models(self) -> Mapping[str, str]:
        """Return the models with weights, for the manifest."""
        judged = may_be_of_digits(self.model)  # the judge is of digits
        return {**model_files(self), **({"classifier": "classifier"} if judged else {})}

    def carried(self, wanted: Constraint, model: Model) -> Constraint:
        """Return what is wanted of images as what is wanted in the model's space."""
        if model.space == "pixels":
            return wanted
        if self.through != "latents":
            return Decoded(wanted, model.encode, model.decode, self.through)
        assert isinstance(wanted, Inpainting)
        try:
            return latent_inpainting(wanted.y, wanted.mask, model.encode)
        except InputError as error:
            raise InputError(
                f"--through latents does not do for this mask, --through secant does: {error}"
            ) from error


def batch_size(model: Model) -> int:
    """Return how many samples are drawn together."""
    _, height, width = model.image_shape
    return min(BATCH, max(1, PIXELS // (height * width)))


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, model: Model) -> Tensor:
    """Return a function of samples, the encoder or decoder, a few at a time."""
    parts = torch.split(x, batch_size(model))
    return torch.cat([checked(function(part), part, "autoencoder") for part in parts])


def sample_images(
    config: Constrained,
    model: Model,
    seeds: Sequence[int],
    pieces: Pieces,
    name: str,
    constraint: Callable[[slice], Constraint] | None = None,
) -> Arrays:
    """Return a sample for each seed, drawn in pieces that are kept on disk.

    Parameters
    ----------
    constraint : callable, optional
        `constraint(part)`: of the samples in that part; without, they are drawn freely.

    Returns
    -------
    dict
        "images" (N, c, H, W), decoded; "residual" (N, times, Newton steps + 1) of the images on the
        way, with a constraint only; "passes" (N, 3) of the denoiser: forward passes, J v and J^T u.
    """
    batch, times = batch_size(model), config.times(model.denoiser)

    @torch.no_grad()
    def piece(part: slice) -> Arrays:
        wanted = None if constraint is None else constraint(part)
        goal = None if wanted is None else config.carried(wanted, model)
        noise = seeded_noise(seeds[part], model.denoiser.shape, config.device)
        newton = None if goal is None else config.newton()
        shape = (len(times), 1 if newton is None else newton.steps + 1)
        residual = []
        states = sample(
            model.denoiser,
            noise,
            times,
            goal,
            newton,
            eta=config.eta,
            temperature=config.noise_factor(),
            seeds=seeds[part],
        )
        for state in tqdm(states, total=shape[0] * shape[1], desc="states", leave=False):
            if wanted is not None and state.residual is not None:
                # the other goals tell what the decoded images miss
                of_latents = config.through == "latents"
                missing = wanted.residual(model.decode(state.x0)) if of_latents else state.residual
                residual.append(missing.cpu().numpy())
        passes = (state.spent.forward, state.spent.jvp, state.spent.vjp)
        images = checked(model.decode(state.x0), state.x0, "decoder")
        found = {"images": images.cpu().numpy(), "passes": np.tile(passes, (len(noise), 1))}
        return found | ({"residual": np.stack(residual, 1).reshape(-1, *shape)} if residual else {})

    parts = [slice(at, min(at + batch, len(seeds))) for at in range(0, len(seeds), batch)]
    found = pieces.each(name, {f"{name}-{part.start}": partial(piece, part) for part in parts})
    return {key: np.concatenate([cell[key] for cell in found]) for key in found[0]}


def spent(passes: NDArray[Any]) -> Row:
    """Return the passes that a sample cost, for a table: the mean, of (N, 3)."""
    mean = (int(n) if n.is_integer() else float(n) for n in passes.mean(0))
    return dict(zip(("forward_passes", "products_Jv", "products_JTu"), mean, strict=True))
