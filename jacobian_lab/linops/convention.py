"""Is a network wrapped rightly? Its errors by noise level, beside what is possible, and beside
what other conventions would give.

    print(check_convention(denoiser, images))

A derivative can be right and the denoiser wrong: a network that predicts v taken for epsilon, a
sign, a time that is divided by 1000, the table of another schedule, pixels in [0, 1]. Each slip is
another denoiser made of the same network; the right one has the least error on clean samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from jacobian_lab import _require
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.other_conventions import others, time_of_ratio
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import InputError
from jacobian_lab.linops.batch_jacobian import BatchJacobian

RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Noise levels sigma / alpha at which errors are compared: data have a size of about 1."""
BETTER = 0.95
"""Another convention is named if it has at most this share of the error, on the same samples: two
tables, linear and scaled linear, differ by 8 to 30 %, other conventions by factors.
"""
BEATEN = 1.05
"""A denoiser should have at most this much of a linear 3 x 3 filter's error."""
TWEEDIE = 0.35
"""Relative difference of trace and error that a trained network may have; shipped ones have 0.1."""
MOST = 64
"""Samples that are looked at."""
FEW = 8
"""Samples on which conventions are compared: their errors differ by far more than by chance."""
ENTRIES = 512
"""Entries on which they are, at least, if there are as many: of a few numbers a sample, chance is
as large.
"""
MIDDLE = (0.3, 1.0, 3.0)
"""Noise levels at which they are."""


@dataclass(frozen=True)
class Level:
    """Errors at one noise level, root mean square over samples and entries."""

    t: int | float
    ratio: float
    """sigma_t / alpha_t."""
    error: float
    """Of D."""
    possible: float
    """Of the best linear filter of 3 x 3 neighbours, or, of samples that are no images, of the best
    multiple of x_t.
    """


@dataclass(frozen=True)
class ConventionReport:
    """What `check_convention` found; true if nothing speaks against the way a network is
    wrapped.
    """

    levels: tuple[Level, ...]
    trace: float
    """Mean of tr J at the noise level nearest to sigma = alpha."""
    tweedie: float
    """What a posterior mean's would be, `alpha / sigma^2 |x_0 - D|^2` on the same samples."""
    trace_error: float
    """Standard error of their difference."""
    smallest: float
    largest: float
    """Range of the samples."""
    slips: tuple[str, ...]
    """What is likely wrong, and what to do; empty if nothing is."""

    def __bool__(self) -> bool:
        return not self.slips

    def __str__(self) -> str:
        lines = ["       t  sigma/alpha   error of D   of a linear filter"]
        lines += [
            f"{level.t:>8.4g}  {level.ratio:>11.3g}  {level.error:>11.3g}  {level.possible:>19.3g}"
            for level in self.levels
        ]
        return "\n".join(
            [
                *lines,
                f"trace of J {self.trace:.3g}, by the error {self.tweedie:.3g}"
                f" +- {self.trace_error:.1g}; samples in [{self.smallest:.3g}, {self.largest:.3g}]",
                *(self.slips or ("no slip found",)),
            ]
        )

    __repr__ = __str__


@torch.no_grad()
def check_convention(
    denoiser: Denoiser,
    images: Tensor,
    x_t: Tensor | None = None,
    t: Time | None = None,
    *,
    seed: int = 0,
) -> ConventionReport:
    """Look for slips in how a network is wrapped, on clean samples of what it was trained on.

    Parameters
    ----------
    denoiser : Denoiser
    images : Tensor, shape (N, *shape)
        Clean samples, in the range in which they are given to the denoiser; of a latent model its
        latents. Eight or more images tell most, or 64 samples of a few entries; 64 are looked at.
    x_t, t : optional
        A noisy sample, `shape` or (B, *shape), at which J is taken, and its time: is there as much
        noise in it as the time says?
    seed : int
        Of the noise.

    Returns
    -------
    ConventionReport
        Prints as a table; false if a slip is likely.
    """
    _require.instance("denoiser", denoiser, Denoiser)
    clean = denoiser.batched(images)[:MOST]
    _require.finite("images", clean)
    if len(clean) < 2:
        raise InputError(f"expected two or more clean samples, eight tell most: got {len(clean)}")
    if not clean[:FEW].std() > 0:
        raise InputError(f"the samples are {float(clean.min()):g} everywhere: nothing to denoise")
    generator = torch.Generator().manual_seed(_require.seed(seed))
    noise = torch.randn(clean.shape, generator=generator, device="cpu").to(clean)
    levels = [
        level for ratio in RATIOS if (level := _level(denoiser, clean, noise, ratio)) is not None
    ]
    if not levels:
        raise InputError(
            f"{denoiser.schedule} reaches none of the noise levels sigma / alpha"
            f" {', '.join(map(str, RATIOS))}"
        )
    trace, tweedie, spread = _traces(denoiser, clean, noise, generator)
    report = ConventionReport(
        tuple(levels), trace, tweedie, spread, float(clean.min()), float(clean.max()), ()
    )
    slips = [*_slips(report, denoiser, clean, noise)]
    if x_t is not None:
        slips += _noise_slips(denoiser, clean, x_t, t)
    return replace(report, slips=tuple(slips))


def _slips(
    report: ConventionReport, denoiser: Denoiser, clean: Tensor, noise: Tensor
) -> Iterator[str]:
    """Yield what is likely wrong with the wrapping."""
    few = max(FEW, ENTRIES // clean[0].numel())
    clean, noise = clean[:few], noise[:few]
    found = _score(denoiser, clean, noise)
    scores = {
        said: _score(other, samples, noise, float(samples.std() / clean.std()))
        for said, other, samples in others(denoiser, clean)
    }
    if (
        scores
        and (best := min(scores, key=lambda said: scores[said]))
        and (scores[best] < BETTER * found)
    ):
        yield (f"SLIP: {best}. The errors are then {scores[best] / found:.2g} times what they are")
        return
    if found > BEATEN:
        yield (
            f"SLIP: D is {found:.3g} times as far from clean samples as a linear filter, and no"
            " other convention that was tried is better: is the network trained, and on such"
            " samples?"
        )
        return
    apart = abs(report.trace - report.tweedie)
    if apart > TWEEDIE * abs(report.tweedie) + 4 * report.trace_error:
        yield (
            f"SLIP: the trace of J is {report.trace:.3g} where the error of D wants"
            f" {report.tweedie:.3g} (Tweedie): J is not that of a posterior mean; run audit"
        )


def _score(denoiser: Denoiser, clean: Tensor, noise: Tensor, size: float = 1.0) -> float:
    """Return the geometric mean of the errors relative to what is possible; infinite if the network
    cannot be called so. The noise is `size` times as large as for others: that of the samples.
    """
    try:
        found = [_level(denoiser, clean, noise, size * ratio) for ratio in MIDDLE]
    except Exception:  # of a network that is given what it was not made for: anything
        return math.inf
    shares = [level.error / max(level.possible, 1e-12) for level in found if level is not None]
    if not shares or not all(map(math.isfinite, shares)):
        return math.inf
    return math.exp(sum(math.log(max(share, 1e-12)) for share in shares) / len(shares))


def _level(denoiser: Denoiser, clean: Tensor, noise: Tensor, ratio: float) -> Level | None:
    """Return the errors at a noise level; None if the schedule does not have it."""
    t = time_of_ratio(denoiser.schedule, ratio)
    if t is None:
        return None
    alpha_t, sigma_t = (float(c) for c in denoiser.schedule(t))
    noisy = clean + sigma_t / alpha_t * noise
    # training mode has its own check: the audit's
    D = denoiser(alpha_t * noisy, t)
    return Level(t, sigma_t / alpha_t, _rms(D - clean), _rms(_filtered(noisy, clean) - clean))


def _filtered(noisy: Tensor, clean: Tensor) -> Tensor:
    """Return the least-squares estimate of clean samples, linear in the 3 x 3 neighbours of each
    pixel, for each channel; of samples that are no images, in the entry itself.
    """
    if noisy.ndim == 4 and min(noisy.shape[-2:]) >= 3:
        n, c, h, w = noisy.shape
        padded = F.pad(noisy.reshape(n * c, 1, h, w).double(), (1, 1, 1, 1), mode="replicate")
        near = F.unfold(padded, 3).reshape(n, c, 9, h * w).permute(1, 0, 3, 2).flatten(1, 2)
        target = clean.permute(1, 0, 2, 3).reshape(c, -1, 1).double()
    else:
        near, target = noisy.reshape(1, -1, 1).double(), clean.reshape(1, -1, 1).double()
    near = torch.cat([near, torch.ones_like(near[..., :1])], -1)
    gram = near.mT @ near
    gram.diagonal(dim1=-2, dim2=-1).add_(1e-9 * gram.diagonal(dim1=-2, dim2=-1).mean())
    found = near @ torch.linalg.solve(gram, near.mT @ target)
    if noisy.ndim == 4 and min(noisy.shape[-2:]) >= 3:
        return found.reshape(c, n, h, w).permute(1, 0, 2, 3).to(clean)
    return found.reshape(clean.shape).to(clean)


def _traces(
    denoiser: Denoiser, clean: Tensor, noise: Tensor, generator: torch.Generator
) -> tuple[float, float, float]:
    """Return the mean trace of J by random probes, what Tweedie wants, and the standard error of
    their difference.
    """
    t = min(
        (t for ratio in RATIOS if (t := time_of_ratio(denoiser.schedule, ratio)) is not None),
        key=lambda t: abs(math.log(float(denoiser.schedule(t)[1] / denoiser.schedule(t)[0]))),
    )
    alpha_t, sigma_t = (float(c) for c in denoiser.schedule(t))
    J = BatchJacobian(denoiser, alpha_t * clean + sigma_t * noise, t, "central")
    probes = [
        (2 * torch.randint(0, 2, clean.shape, generator=generator, device="cpu") - 1).to(clean)
        for _ in range(4)
    ]
    traces = torch.stack([(g * J.jvp(g)).flatten(1).sum(1) for g in probes]).mean(0).double()
    wanted = alpha_t / sigma_t**2 * (J.d - clean).flatten(1).square().sum(1).double()
    spread = float((traces - wanted).std() / len(clean) ** 0.5)
    return float(traces.mean()), float(wanted.mean()), spread


def _noise_slips(denoiser: Denoiser, clean: Tensor, x_t: Tensor, t: Time | None) -> list[str]:
    """Return a slip if the samples of a time hold much less noise than it says, or much more than
    that and what clean samples look like; of few pixels, if that is no chance.
    """
    if t is None:
        raise InputError("x_t comes without its time: give t")
    x = denoiser.batched(x_t)
    if x.ndim < 3 or min(x.shape[-2:]) < 4:
        return []
    times = denoiser.schedule.time_tensor(t).cpu().expand(len(x))
    alpha_t, sigma_t = (c.cpu().expand(len(x)) for c in denoiser.schedule(t))
    for time in sorted(set(times.tolist())):
        at = times == time
        alpha, sigma = (float(c[at][0]) for c in (alpha_t, sigma_t))
        found, doubt = _finest(x[at.to(x.device)])
        if found < sigma * min(0.5, 1 - 3 * doubt):
            remedy = "is it a clean sample? Take schedule.add_noise(x0, t, noise)"
        elif found > (sigma + alpha * _finest(clean)[0]) * max(2.0, 1 + 3 * doubt):
            remedy = "is it of another time, or scaled otherwise, x_0 + sigma noise?"
        else:
            continue
        return [
            f"SLIP: x_t holds noise of {found:.2g}, and t = {time:g} says {sigma:.2g}: {remedy}"
        ]
    return []


def _finest(x: Tensor) -> tuple[float, float]:
    """Return the noise of images and its relative standard error: the finest diagonal differences'
    standard deviation by the median of their size (Donoho, Johnstone 1994), which has 37 % of the
    efficiency of the mean square.
    """
    h, w = (size // 2 * 2 for size in x.shape[-2:])
    a, b = x[..., 0:h:2, 0:w:2] - x[..., 1:h:2, 0:w:2], x[..., 0:h:2, 1:w:2] - x[..., 1:h:2, 1:w:2]
    found = float((a - b).abs().double().median()) / 2 / 0.6745
    return found, (2 * 0.37 * a.numel()) ** -0.5


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
