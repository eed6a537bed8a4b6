"""What the page looks at: a model, an image and a noise level, as the user chose them.

An uploaded file is bounded in bytes and in pixels before it is decoded, and read by the reader of
`--images`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

import mnist
from jacobian_lab import DiscreteSchedule, InputError, _require
from jacobian_lab.constraints.decoded import checked
from studies.explore.point import Point
from studies.frame.image_files import size_of
from studies.frame.models import Model, open_model
from studies.frame.user_images import read_samples

SHIP = ("mnist", "mnist-flow", "oracle", "mnist-latent")
DIGITS = 5000
MOST_BYTES = 4 * 2**20
"""Of an uploaded file."""
MOST_PIXELS = 16_000_000
"""Of an uploaded image: 64 MB, decoded."""
UPLOAD = "the uploaded image"


@dataclass(frozen=True)
class Upload:
    """A file that the user sent."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Look:
    """What the user chose."""

    model: str = "mnist"
    digit: int = 0
    t: float = 500
    seed: int = 0
    upload: Upload | None = None
    """In place of the digit."""


@dataclass(frozen=True)
class Range:
    """The times of a schedule, as a slider takes them."""

    first: float
    last: float
    step: float
    name: str
    """What a time is called."""
    form: str = "0"
    """How a time is written, for a slider."""

    def fit(self, t: float) -> int | float:
        """Return the time of the schedule that is nearest to t."""
        inside = min(max(t, self.first), self.last)
        return round(inside) if self.step == 1 else inside

    def carried(self, t: float) -> int | float:
        """Return a time of another schedule, 0 to 999 or a share, as one of this."""
        whole = self.step == 1
        if whole and isinstance(t, float) and t <= 1:
            return self.fit(t * self.last)
        return self.fit(t if whole or t <= self.last else t * self.last / 1000)


@lru_cache(maxsize=4)
def opened(name: str, device: str) -> Model:
    """Return a model, which all sessions share."""
    return open_model(name, device)


def times_of(model: Model) -> Range:
    """Return the range of the schedule's times: 0 ... T-1, or (0, last] in hundredths."""
    schedule = model.denoiser.schedule
    if isinstance(schedule, DiscreteSchedule):
        return Range(0, schedule.steps - 1, 1, "t")
    last = float(schedule.times(1)[0])
    return Range(last / 100, last, last / 100, "sigma", "0.00")


def carried(t: float, before: Model, after: Model) -> int | float:
    """Return the time of a model at which noise is as strong, by sigma / alpha, as at a time of
    another.
    """
    times = times_of(after)
    alpha_t, sigma_t = before.denoiser.schedule(times_of(before).fit(t))
    try:
        return times.fit(after.denoiser.schedule.time_of(sigma_t / alpha_t).item())
    except InputError:  # a schedule of the user's that does not tell
        return times.carried(t)


def taken(choice: Look, device: str) -> Point:
    """Return the point that was chosen.

    Raises
    ------
    InputError
        If there is none: the model cannot be opened, is of no images, or the file cannot be read.
    """
    model = opened(choice.model, device)
    if len(model.denoiser.shape) != 3:
        raise InputError(
            f"--model {choice.model} is of samples of shape {model.denoiser.shape}: the explorer"
            " shows images, (C, H, W)"
        )
    clean, number = clean_image(choice, model)
    return Point(model, clean, times_of(model).fit(choice.t), choice.seed, number)


@torch.no_grad()
def clean_image(choice: Look, model: Model) -> tuple[Tensor, int]:
    """Return the clean image in the model's space, (C, H, W), and its number, which seeds noise."""
    number = _require.integer("the digit", choice.digit, 0, DIGITS - 1)
    if choice.upload is not None:
        images, number = read_upload(choice.upload, model), 0
    elif model.digits:
        images = mnist.digits("held-out")[0][number : number + 1]
    else:
        shape = "x".join(map(str, model.image_shape))
        raise InputError(
            f"--model {choice.model} is not of digits, but of images of {shape}: upload an image"
        )
    images = images.to(model.device, model.dtype)
    return checked(model.encode(images), images, "encoder")[0], number


def read_upload(upload: Upload, model: Model) -> Tensor:
    """Return an uploaded image as the model takes it, (1, c, H, W), or raise one sentence."""
    name = Path(upload.name.replace("\\", "/")).name
    name = "".join(c for c in name if c.isprintable())[-100:] or "upload"
    if len(upload.data) > MOST_BYTES:
        raise InputError(too_large(name, len(upload.data)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "upload"  # names of users may be no names of files
        path.write_bytes(upload.data)
        try:
            width, height = size_of(path, UPLOAD)
            if width * height > MOST_PIXELS:
                raise InputError(
                    f"{name} has {width}x{height} pixels: expected at most {MOST_PIXELS:,} in all."
                    " Scale it down"
                )
            return read_samples((path,), model.image_shape, model.digits).samples
        except InputError as error:
            raise InputError(
                str(error).replace(str(path), name).replace("--images ", "")
            ) from error


def too_large(name: str, size: int) -> str:
    """Return what is said of a file of too many bytes."""
    return f"{name} has {size:,} bytes: expected at most {MOST_BYTES:,}. Scale it down"
