"""What the studies of constrained sampling share: options, the digits or the user's file, sampling in pieces, their drawing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

import mnist
from jacobian_lab import Denoiser, InputError
from jacobian_lab.constraint import Constraint
from jacobian_lab.newton import Kind, Newton
from jacobian_lab.sampler import sample, seed_of, seeded_noise
from jacobian_lab.step_size import Dynamic, Secant, StepSize
from mnist.data import SHAPE, from_bytes
from studies.frame import Arrays, Config, Pieces
from studies.models import ORACLE
from studies.style import show

BATCH = 50
UNKNOWN = "#8fb0cf"
Rule = Literal["secant", "dynamic"]


@dataclass(frozen=True)
class Constrained(Config):
    """Options of a study of constrained sampling."""

    model: str = "denoiser"
    """Denoiser that ships, the path of one that you trained, or "oracle": ten Gaussians, whose J is known in closed form."""
    samples: int = 3
    """Samples, each from noise of its own."""
    steps: int = 20
    """Sampling times, evenly spaced."""
    last_of: int = 100
    """Where they end: at the last of this many, 100 at 1 % of the way; with the number of --steps, one more would be clean."""
    newton_steps: int = 5
    """Newton steps at each time."""
    direction: Kind = "inexact"
    """Of a Newton step: inexact J e, gradient J^T e, exact J^+ e (slow: the dense J of each sample), krylov, identity e."""
    change: float = 0.2
    """Largest change of a pixel of x_t in a Newton step; pixels are in [-1, 1]."""
    rule: Rule = "secant"
    """Size of a Newton step: the paper's "dynamic" always moves a pixel by --change, "secant" brakes where the goal is near."""
    eta: float = 1.0
    """Share of fresh noise at each time, from 0 (DDIM) to 1 (DDPM's ancestral sampling)."""
    hashes: dict[str, str] = field(init=False, default_factory=dict)
    """SHA-256 of the user's files, found here, so that a run with another content is another run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or self.steps < 1 or self.last_of < 1 or self.newton_steps < 1:
            raise InputError("--samples, --steps, --last-of and --newton-steps must be at least 1: got "
                             f"{self.samples}, {self.steps}, {self.last_of}, {self.newton_steps}")
        if not self.change > 0:
            raise InputError(f"--change must be positive: got {self.change}")
        if not 0 <= self.eta <= 1:
            raise InputError(f"--eta must lie from 0 to 1: got {self.eta}")
        if self.rule == "secant" and self.direction in ("exact", "krylov"):
            raise InputError(f"--rule secant takes g for J e, and would brake --direction {self.direction} wrongly: add "
                             "--rule dynamic")

    def newton(self) -> Newton:
        """Return how the sampler takes its Newton steps."""
        rule: StepSize = Secant(self.change) if self.rule == "secant" else Dynamic(self.change)
        return Newton(self.direction, self.newton_steps, rule)

    def times(self, denoiser: Denoiser) -> list[int] | list[float]:
        """Return the sampling times."""
        schedule = denoiser.schedule
        return schedule.times(self.steps, schedule.times(max(self.steps, self.last_of))[-1])

    def noise_seeds(self) -> list[int]:
        """Return the seeds of `samples` different noises."""
        return [seed_of(self.seed, k) for k in range(self.samples)]

    def models(self) -> Mapping[str, str]:
        """Return the models with weights, for the manifest."""
        return {**({} if self.model == ORACLE else {self.model: "denoiser"}), "classifier": "classifier"}


class Digits(NamedTuple):
    """Clean images, (N, 1, 32, 32), what they show, and the numbers that their noise is seeded by."""

    images: Tensor
    labels: Tensor
    numbers: list[int]


@dataclass(frozen=True)
class OfDigits(Constrained):
    """Options of a study of held-out digits, or of an image of the user's."""

    digit: int = 0
    """First held-out digit, 0 to 4999; digit i shows the class i % 10."""
    digits: int = 24
    """Digits: this many, from `digit` on."""
    image: Path | None = None
    """In their place an image file, white on black, 32x32 or 28x28 pixels; what it shows is what the classifier sees in it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.digit < 5000:
            raise InputError(f"--digit {self.digit} is not a held-out digit: expected 0 to 4999")
        if not 1 <= self.digits <= 5000 - self.digit:
            raise InputError(f"--digits must lie from 1 to {5000 - self.digit}: got {self.digits}")
        if self.image is not None:
            read_gray(self.image, "--image", self.sides())
            self.hashes["image"] = file_hash(self.image)

    def sides(self) -> tuple[int, ...]:
        """Return the sides, in pixels, that the image may have."""
        return SHAPE[1], SHAPE[1] - 4

    @torch.no_grad()
    def load(self) -> Digits:
        """Return the digits, or the image."""
        if self.image is not None:
            image = as_digit(read_gray(self.image, "--image", self.sides())).to(self.device)
            return Digits(image, mnist.load_classifier(device=self.device)(image).argmax(1), [self.digit])
        chosen = slice(self.digit, self.digit + self.digits)
        images, labels = (x[chosen].to(self.device) for x in mnist.digits("held-out"))
        return Digits(images, labels, list(range(chosen.start, chosen.stop)))

    def seeds(self, numbers: Sequence[int]) -> list[int]:
        """Return the seeds of the noise: `samples` for each digit, one digit after the other."""
        return [seed_of(self.seed, number, k) for number in numbers for k in range(self.samples)]


def read_gray(path: Path, option: str, sides: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an image file as gray pixels, (side, side) in [0, 255]; raise unless it is square, of one of these sides."""
    wanted = f"{option} must be an image of {' or '.join(f'{side}x{side}' for side in sides)} pixels"
    try:
        with Image.open(path) as image:
            gray = np.array(image.convert("L"))
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}: {wanted}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that can be read: {wanted}; PNG will do") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}): {wanted}") from error
    height, width = gray.shape
    if height != width or height not in sides:
        raise InputError(f"{path} has {width}x{height} pixels: {wanted}. Crop it and scale it")
    return gray


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def as_digit(gray: NDArray[np.uint8]) -> Tensor:
    """Return gray pixels as (1, 1, 32, 32) in [-1, 1], padded with background from 28 to 32 as MNIST is."""
    padded = from_bytes(gray[None])
    return padded if len(gray) == SHAPE[1] - 4 else padded[..., 2:-2, 2:-2]


def draw(config: Constrained, denoiser: Denoiser, seeds: Sequence[int], pieces: Pieces, name: str,
         constraint: Callable[[slice], Constraint] | None = None) -> Arrays:
    """Return a sample for each seed, drawn in pieces that are kept on disk.

    Parameters
    ----------
    constraint : callable, optional
        `constraint(part)`: of the samples in that part; without, they are drawn freely.

    Returns
    -------
    dict
        "images" (N, 1, 32, 32); "residual" (N, times, Newton steps + 1), with a constraint only; "passes" (N, 3), forward
        passes, J v and J^T u.
    """
    times = config.times(denoiser)

    def piece(part: slice) -> Arrays:
        wanted = None if constraint is None else constraint(part)
        noise = seeded_noise(seeds[part], denoiser.shape, config.device)
        shape = (len(times), 1 if wanted is None else config.newton_steps + 1)
        residual = []
        states = sample(denoiser, noise, times, wanted, None if wanted is None else config.newton(), eta=config.eta,
                        seeds=seeds[part])
        for state in tqdm(states, total=shape[0] * shape[1], desc="states", leave=False):
            if state.residual is not None:
                residual.append(state.residual.cpu().numpy())
        passes = (state.spent.forward, state.spent.jvp, state.spent.vjp)
        found = {"images": state.x0.cpu().numpy(), "passes": np.tile(passes, (len(noise), 1))}
        return found | ({"residual": np.stack(residual, 1).reshape(-1, *shape)} if residual else {})

    parts = [slice(at, min(at + BATCH, len(seeds))) for at in range(0, len(seeds), BATCH)]
    found = [pieces(f"{name}-{part.start}", lambda part=part: piece(part))  # type: ignore[misc]
             for part in tqdm(parts, desc=name, unit="batch")]
    return {key: np.concatenate([cell[key] for cell in found]) for key in found[0]}


def spent(passes: NDArray[Any]) -> dict[str, int]:
    """Return the passes that a sample cost, for a table."""
    return dict(zip(("forward_passes", "products_Jv", "products_JTu"), passes[0].tolist(), strict=True))


def grid(figure: Any, rows: Sequence[tuple[str, Sequence[NDArray[Any] | None]]],  # noqa: ANN401 - a Figure or a SubFigure
         titles: Sequence[str] = ()) -> None:
    """Show rows of images, each with its label; None leaves a gap, and NaN pixels, unknown ones, have a colour of their own."""
    panels = figure.subplots(len(rows), len(rows[0][1]), squeeze=False, gridspec_kw={"wspace": 0, "hspace": 0})
    for row, (label, images) in zip(panels, rows, strict=True):
        for axes, image in zip(row, images, strict=True):
            if image is None:
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            else:
                show(axes, image)
                axes.set_facecolor(UNKNOWN)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axes, title in zip(panels[0], titles, strict=False):
        axes.set_title(title)


def plot_along(axes: Axes, values: NDArray[Any], times: NDArray[Any], colour: str) -> None:
    """Draw values of N samples, (N, times, states), against the time: the median, and the range from 10 to 90 %."""
    states = values.shape[2]
    x = (np.arange(len(times))[:, None] + np.arange(states) / states).reshape(-1)
    low, middle, high = np.quantile(values.reshape(len(values), -1), (0.1, 0.5, 0.9), axis=0)
    axes.plot(x, middle, color=colour, linewidth=1)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    ticks = np.linspace(0, len(times) - 1, min(4, len(times))).round().astype(int)
    axes.set(yscale="log", xlabel="time $t$", xticks=ticks, xticklabels=[f"{times[k]:.3g}" for k in ticks])

