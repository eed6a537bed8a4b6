"""Can a classifier's loss turn noise into a digit of any class? The same noises, guided towards
each class.

A classifier that guides a sample may be fooled by it, and must not be its only judge. The second
judge here shares no weights, no layers and no training data with the first: kernel ridge regression
on pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

import mnist
from jacobian_lab import InputError
from jacobian_lab.constraints.losses import class_label
from mnist.classifier import Classifier
from mnist.data import SHAPE
from studies.frame.answer import Answer, Row
from studies.frame.dataset import ALONG, IMAGE, SUBJECT, Variable
from studies.frame.figure_style import COLOURS
from studies.frame.figure_text import subject, write_subject
from studies.frame.panels import grid, plot_along
from studies.frame.statistics import class_of, fraction_interval
from studies.frame.study import Arrays, Pieces, Study
from studies.sampling.constrained import Constrained, sample_images, spent

LEARNT = 4000  # held-out digits that the second judge learns from; the others test both
TARGET = 0.05  # cross-entropy in nats
SHOWN = 6
JUDGES = ("classifier that guides", "second judge, on pixels")
JUDGE_COLOURS = ("#333333", COLOURS["exact"])


@dataclass(frozen=True)
class Guide(Constrained):
    """Guide noise towards each class by a classifier. Example: jacobian-lab guide --classes 3 8
    --samples 4.
    """

    samples: int = 8
    """Noises, each guided towards each class."""
    change: float = 0.4
    """Largest change of a pixel of x_t, or of a number of a noisy latent, in a Newton step."""
    classes: tuple[int, ...] = tuple(range(10))
    """Digits wanted, 0 to 9."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.classes or not set(self.classes) <= set(range(10)):
            raise InputError(
                "--classes must be one or more different digits, 0 to 9: got "
                f"{' '.join(map(str, self.classes)) or 'none'}"
            )


class PixelJudge:
    """Kernel ridge regression on pixels, Gaussian kernel: a classifier without features, in closed
    form.

    Parameters
    ----------
    images : Tensor, shape (N, 1, 32, 32)
    labels : Tensor, shape (N,)
    width : float
        Standard deviation of the kernel; distances between digits are about 20.
    ridge : float
    """

    def __init__(
        self, images: Tensor, labels: Tensor, width: float = 9.0, ridge: float = 1e-2
    ) -> None:
        self.images, self.width = images.double().flatten(1), width
        kernel = self._kernel(self.images) + ridge * torch.eye(len(images), dtype=torch.float64)
        self.weights = torch.linalg.solve(
            kernel, torch.nn.functional.one_hot(labels, 10).double() - 0.1
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the class of each image, (N,); -1 of one that diverged."""
        return class_of(self._kernel(images.cpu().clamp(-1, 1).double().flatten(1)) @ self.weights)

    def _kernel(self, images: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(images, self.images).square() / (2 * self.width**2))


@torch.no_grad()
def names_of(
    images: Tensor, classifier: Classifier, second: PixelJudge, device: str
) -> NDArray[np.int64]:
    """Return the digit that each of the two judges names, (2, N); -1 for images that diverged."""
    seen = class_of(classifier(images.to(device).clamp(-1, 1))).cpu()
    return torch.stack([seen, second(images)]).numpy()


def compute(config: Guide, pieces: Pieces) -> Arrays:
    """Return "images" (noises, classes, ...), what both judges see in them, (2, noises, classes),
    the loss along sampling.
    """
    model, classifier = config.load(), mnist.load_classifier(device=config.device)
    if not model.digits:
        raise InputError(
            f"guide needs a classifier of what is drawn, and has one of digits, {SHAPE}: --model"
            f" {config.model} makes images of {model.image_shape}"
        )
    noises = config.noise_seeds()
    wanted = torch.tensor(config.classes, device=config.device).repeat(len(noises))
    guided = sample_images(
        config,
        model,
        [seed for seed in noises for _ in config.classes],
        pieces,
        "guided",
        lambda part: class_label(classifier, wanted[part], TARGET),
    )
    free = sample_images(config, model, noises, pieces, "unconstrained")
    digits, labels = mnist.digits("held-out")
    second = PixelJudge(digits[:LEARNT], labels[:LEARNT])

    def judge(images: Tensor) -> NDArray[np.int64]:
        return names_of(images, classifier, second, config.device)

    shape = (len(noises), len(config.classes))
    return {
        "images": guided["images"].reshape(*shape, *SHAPE),
        "free": free["images"],
        "named": judge(torch.from_numpy(guided["images"])).reshape(2, *shape),
        "free_named": judge(torch.from_numpy(free["images"])),
        "residual": guided["residual"],
        "real_right": judge(digits[LEARNT:]) == labels[LEARNT:].numpy(),
        "passes": guided["passes"],
        "free_passes": free["passes"],
        "time": np.array(config.times(model.denoiser)),
        **subject(config),
        "classes": np.array(config.classes),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return how often each judge sees the class that was wanted: of all guided samples, of each
    class, and of others. Noises are the independent trials, not the samples that each gives.
    """
    classes = arrays["classes"]
    groups = {
        "real digits": arrays["real_right"],
        "guided": (arrays["named"] == classes).mean(2),
        "unconstrained": (arrays["free_named"][:, :, None] == classes).mean(2),
    }
    groups |= {
        f"guided to {c}": arrays["named"][:, :, k] == c for k, c in enumerate(classes.tolist())
    }
    passes = {"guided": arrays["passes"], "unconstrained": arrays["free_passes"]}
    loss = float(np.median(arrays["residual"][:, -1, -1])) + TARGET
    rows: list[Row] = []
    for name, right in groups.items():
        for judge, values in zip(JUDGES, right, strict=True):
            rate, low, high = fraction_interval(values)
            rows.append(
                {
                    "images": name,
                    "judge": judge,
                    "of": len(values),
                    "right": rate,
                    "right_low": low,
                    "right_high": high,
                    **spent(passes.get(name.split()[0], np.zeros((1, 3), dtype=int))),
                    "cross_entropy_median": loss if name == "guided" else "",
                }
            )
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw noise by class; below, the loss along sampling and what the judges see."""
    classes, count = arrays["classes"].tolist(), min(SHOWN, len(arrays["images"]))
    side = min(1.2, 6.8 / (1 + len(classes)))
    figure = Figure(figsize=(7.2, side * count + 3.0))
    write_subject(figure, arrays)
    parts: Any = figure.subfigures(2, 1, height_ratios=(side * count + 0.3, 2.5))
    grid(
        parts[0],
        [(f"noise {k}", [arrays["free"][k], *arrays["images"][k]]) for k in range(count)],
        ["free", *(f"to {c}" for c in classes)],
    )
    left, right = parts[1].subplots(1, 2, width_ratios=(1, 1.6))
    plot_along(left, arrays["residual"] + TARGET, arrays["time"], COLOURS["inexact"])
    left.set_ylim(0.5 * np.quantile(arrays["residual"] + TARGET, 0.1, axis=0).min(), None)
    left.axhline(TARGET, color="#999999", linewidth=0.6, linestyle=":")
    left.set(
        ylabel="cross-entropy of the class",
        title=(
            f"Loss, down to its target of {TARGET:g}\n"
            f"median, band 10-90 % of {len(arrays['residual'])} samples"
        ),
    )
    _plot_judges(right, arrays)
    parts[1].legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


def _plot_judges(axes: Axes, arrays: Arrays) -> None:
    """Draw the share of samples in which each judge sees the wanted class, with 95 % intervals."""
    classes = arrays["classes"]
    for j, (judge, colour) in enumerate(zip(JUDGES, JUDGE_COLOURS, strict=True)):
        accuracy = arrays["real_right"][j].mean()
        for k, c in enumerate(classes.tolist()):
            right = arrays["named"][j, :, k] == c
            rate, low, high = fraction_interval(right)
            axes.plot([k + 0.2 * j - 0.1] * 2, [low, high], color=colour, linewidth=1)
            axes.plot(
                k + 0.2 * j - 0.1,
                rate,
                "o",
                color=colour,
                markersize=4,
                clip_on=False,
                label=f"{judge}: right on {100 * accuracy:.1f} % of real digits" if not k else None,
            )
    axes.set(
        xticks=range(len(classes)),
        xticklabels=[str(c) for c in classes],
        ylim=(0, 1),
        xlabel="class wanted",
        ylabel="share named so",
        title=f"What the judges see in {arrays['named'].shape[1]} samples of each class",
    )


ANSWER = Answer(
    ("images", "judge", "of", "right", "forward_passes", "cross_entropy_median"),
    lambda row: not str(row["images"]).startswith("guided to"),
)
VARIABLES = {
    **SUBJECT,
    **ALONG,
    "classes": Variable("wanted", "digits that samples are guided to"),
    "images": Variable(f"noise wanted {IMAGE}", "guided samples"),
    "free": Variable(f"noise {IMAGE}", "unconstrained samples from the same noises"),
    "named": Variable("judge noise wanted", "digit that each of two judges sees; -1: diverged"),
    "free_named": Variable("judge noise", "the same of unconstrained samples"),
    "free_passes": Variable("noise pass", "passes that an unconstrained sample cost"),
    "real_right": Variable("judge real", "whether each judge names a held-out digit rightly"),
}
STUDY = Study(
    "guide",
    Guide,
    compute,
    table,
    plot,
    models=Guide.models,
    answer=ANSWER,
    variables=VARIABLES,
)
