"""Does a latent model draw the digit that its caption names? By our sampler, at several guidance
scales, and by diffusers.

Beside the samples: how well the autoencoder gives held-out digits back, which bounds what any
method in latent space can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import mnist
from jacobian_lab import InputError, Latent, load_latent
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from mnist.data import SHAPE
from mnist.latent import NAMES, caption
from studies.frame.answer import Answer, Row
from studies.frame.dataset import IMAGE, SUBJECT, Variable
from studies.frame.figure_text import subject, write_subject
from studies.frame.model_files import LATENT, pipeline_folder
from studies.frame.panels import grid
from studies.frame.provenance import PIPELINE
from studies.frame.statistics import class_of, mean_interval, rate_interval
from studies.frame.study import Arrays, Config, Pieces, Study
from studies.frame.survey import collect

SHOWN = 3
"""Samples that are shown for each caption and scale."""
OURS, STOCK = "jacobian-lab", "diffusers"


@dataclass(frozen=True)
class Captions(Config):
    """Draw digits from captions. Example: jacobian-lab captions --guidances 1 4 --samples 10."""

    model: str = LATENT
    """mnist-latent, or the folder of a pipeline of digits in diffusers' format."""
    guidances: tuple[float, ...] = (1, 2, 4)
    """Guidance scales, from 1 on; 1 is off."""
    samples: int = 50
    """Samples of each of the ten captions, at each scale."""
    stock: int = 10
    """Of these, drawn again by diffusers' own pipeline and scheduler, from the same noise."""
    steps: int = 30
    """DDIM steps per sample."""
    digits: int = 1000
    """Held-out digits that go through the autoencoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.guidances or min(self.guidances) < 1:
            raise InputError(
                "--guidances must be one or more numbers from 1 on, below which diffusers takes 1:"
                f" got {' '.join(map(str, self.guidances)) or 'none'}"
            )
        counts = 1 <= self.stock <= self.samples, 1 <= self.steps <= 1000, 10 <= self.digits <= 5000
        if self.samples < SHOWN or not all(counts):
            raise InputError(
                f"--samples must be at least {SHOWN}, --stock from 1 to --samples, --steps from 1"
                f" to 1000, --digits from 10 to 5000: got {self.samples}, {self.stock},"
                f" {self.steps}, {self.digits}"
            )

    def models(self) -> Mapping[str, str]:
        """Return the models with weights, for the manifest."""
        return {self.model: PIPELINE, "classifier": "classifier"}

    def seeds(self, digit: int) -> list[int]:
        """Return the seeds of a caption's samples, the same at every scale."""
        return [seed_of(self.seed, digit, k) for k in range(self.samples)]


def compute(config: Captions, pieces: Pieces) -> Arrays:
    """Return samples by scale and caption, (G, 10, N, ...), whether the judge sees the digit, and
    reconstructions.
    """
    latent = load_latent(pipeline_folder(config.model), device=config.device)
    if latent.image_shape != SHAPE:
        raise InputError(
            f"--model {config.model} makes images of shape {latent.image_shape}: expected {SHAPE},"
            " digits"
        )
    ours, stock = (_by_scale(config, pieces, latent, way) for way in (OURS, STOCK))
    found = pieces("reconstructed", lambda: reconstruct(config, latent))
    return found | {
        "images": ours["images"][:, :, :SHOWN],
        "right": ours["right"],
        "doubt": ours["doubt"],
        "stock_right": stock["right"],
        "stock_doubt": stock["doubt"],
        "guidance": np.array(config.guidances),
        "steps": np.array(config.steps),
        **subject(config),
        "difference": (
            np.abs(ours["images"][:, :, : config.stock] - stock["images"]).mean((2, 3, 4, 5))
        ),
    }


def _by_scale(config: Captions, pieces: Pieces, latent: Latent, way: str) -> Arrays:
    """Return what one way of drawing gives, (G, 10, ...)."""
    draw = {OURS: draw_ours, STOCK: draw_stock}[way]
    judge = mnist.load_classifier(device=config.device)

    def piece(scale: float, digit: int) -> Arrays:
        images = draw(config, latent, scale, digit).clamp(-1, 1)
        with torch.no_grad():
            logits = judge(images)
        doubt = torch.nn.functional.cross_entropy(
            logits, torch.full((len(images),), digit).to(logits.device), reduction="none"
        )
        return {
            "images": images.cpu().numpy().astype(np.float16),
            "right": (class_of(logits) == digit).cpu().numpy(),
            "doubt": doubt.cpu().numpy(),
        }

    return collect(pieces, way, piece, guidance=config.guidances, digit=range(len(NAMES)))


def draw_ours(config: Captions, latent: Latent, scale: float, digit: int) -> Tensor:
    """Return the samples of a caption by our sampler, (N, 1, 32, 32)."""
    told = load_latent(latent.pipeline, prompt=caption(digit), guidance=scale)
    noise = seeded_noise(config.seeds(digit), told.denoiser.shape, config.device)
    *_, last = sample(told.denoiser, noise, told.denoiser.schedule.times(config.steps))
    with torch.no_grad():
        return told.decode(last.x0)


def draw_stock(config: Captions, latent: Latent, scale: float, digit: int) -> Tensor:
    """Return the first samples of a caption by diffusers' own pipeline, from the same noise, (N, 1,
    32, 32).
    """
    noise = seeded_noise(config.seeds(digit)[: config.stock], latent.denoiser.shape, config.device)
    latent.pipeline.set_progress_bar_config(disable=True)
    images = latent.pipeline(
        [caption(digit)] * len(noise),
        num_inference_steps=config.steps,
        guidance_scale=float(scale),
        latents=noise,
        output_type="np",
    ).images
    return torch.from_numpy(2 * images - 1).permute(0, 3, 1, 2).to(config.device)


@torch.no_grad()
def reconstruct(config: Captions, latent: Latent) -> Arrays:
    """Return how held-out digits come back from the autoencoder: PSNR in dB, (N,), and some of
    them, before and after.
    """
    images = mnist.digits("held-out")[0][: config.digits].to(config.device)
    back = torch.cat(
        [latent.decode(latent.encode(part)).clamp(-1, 1) for part in torch.split(images, 250)]
    )
    psnr = 10 * torch.log10(4 / (back - images).square().flatten(1).mean(1))
    return {
        "psnr": psnr.cpu().numpy(),
        "before": images[:10].cpu().numpy(),
        "after": back[:10].cpu().numpy(),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each scale and way of drawing, one for each caption, and one for the
    autoencoder.
    """
    rows: list[Row] = []
    for k, scale in enumerate(arrays["guidance"].tolist()):
        for way, prefix in ((OURS, ""), (STOCK, "stock_")):
            right, doubt = arrays[f"{prefix}right"][k], arrays[f"{prefix}doubt"][k]
            rate, low, high = rate_interval(int(right.sum()), right.size)
            rows.append(
                {
                    "guidance": scale,
                    "drawn_by": way,
                    "samples": right.size,
                    "judge_sees_the_digit": rate,
                    "judge_sees_the_digit_low": low,
                    "judge_sees_the_digit_high": high,
                    "doubt_mean_nats": float(doubt.mean()),
                    "least_caption": NAMES[int(right.mean(1).argmin())],
                    "least_rate": float(right.mean(1).min()),
                    "mean_difference_of_both": (
                        float(arrays["difference"][k].mean()) if prefix else ""
                    ),
                }
            )
    mean, low, high = mean_interval(arrays["psnr"])
    rows.append(
        {
            "drawn_by": "autoencoder",
            "samples": len(arrays["psnr"]),
            "psnr_mean_dB": mean,
            "psnr_mean_dB_low": low,
            "psnr_mean_dB_high": high,
            "psnr_least_dB": float(arrays["psnr"].min()),
        }
    )
    keys = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, "") for key in keys} for row in rows]


def plot(arrays: Arrays) -> Figure:
    """Draw samples of each caption at each scale, held-out digits behind the autoencoder, and the
    judge's verdict.
    """
    figure = Figure(figsize=(7.2, 1.3 + 1.15 * len(arrays["guidance"])))
    write_subject(figure, arrays, "rows: guidance, sample; columns: caption; bars: 95 % intervals")
    parts: Any = figure.subfigures(1, 2, width_ratios=[2.9, 1])
    left, right = parts
    rows = [
        (
            f"{scale:g}, sample {k + 1}",
            list(arrays["images"][g, :, k].astype(np.float32)),
        )
        for g, scale in enumerate(arrays["guidance"].tolist())
        for k in range(SHOWN)
    ]
    rows += [("held-out", list(arrays["before"])), ("autoencoder", list(arrays["after"]))]
    grid(left, rows, NAMES)
    axes = right.subplots()
    scales = arrays["guidance"].tolist()
    x = np.arange(len(scales))
    for shift, prefix, label, colour in (
        (-0.08, "", "our sampler", "#0072b2"),
        (0.08, "stock_", "diffusers", "#d55e00"),
    ):
        rates = np.array([rate_interval(int(r.sum()), r.size) for r in arrays[f"{prefix}right"]])
        reach = np.abs(rates[:, 1:] - rates[:, :1]).T
        axes.errorbar(
            x + shift, rates[:, 0], reach, fmt="o", color=colour, label=label, elinewidth=1
        )
    axes.axhline(0.95, color="#999999", linewidth=0.6, linestyle="--", label="95 %")
    axes.set(
        xlabel="guidance scale",
        ylabel="judge sees the caption's digit, share",
        xticks=x,
        ylim=(min(0.9, axes.get_ylim()[0]), 1.005),
        xticklabels=[f"{scale:g}" for scale in scales],
        xlim=(-0.5, len(scales) - 0.5),
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


ANSWER = Answer(("guidance", "drawn_by", "samples", "judge_sees_the_digit", "psnr_mean_dB"))
VARIABLES = {
    **SUBJECT,
    "guidance": Variable("guidance", "scale of classifier-free guidance; 1 is off"),
    "steps": Variable("", "sampling times"),
    "images": Variable(f"guidance digit shown {IMAGE}", "the first samples of each caption"),
    "right": Variable("guidance digit draw", "whether the judge sees the caption's digit"),
    "doubt": Variable("guidance digit draw", "the judge's cross entropy", "nat"),
    "stock_right": Variable("guidance digit stock", "the same of samples by diffusers"),
    "stock_doubt": Variable("guidance digit stock", "the same of samples by diffusers", "nat"),
    "difference": Variable("guidance digit", "mean |difference| of pixels to diffusers' samples"),
    "psnr": Variable("held_out", "PSNR of digits that went through the autoencoder", "dB"),
    "before": Variable(f"reconstructed {IMAGE}", "held-out digits"),
    "after": Variable(f"reconstructed {IMAGE}", "what the autoencoder makes of them"),
}
STUDY = Study(
    "captions",
    Captions,
    compute,
    table,
    plot,
    models=Captions.models,
    answer=ANSWER,
    variables=VARIABLES,
)
