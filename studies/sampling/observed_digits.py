"""Observations of held-out digits, what a sampler makes of them by given Newton steps, and how that
scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jacobian_lab import Denoiser
from jacobian_lab.constraints.base import Linear
from jacobian_lab.errors import DivergenceError
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample
from mnist.classifier import Classifier
from studies.frame.statistics import scores
from studies.frame.study import Arrays


@dataclass(frozen=True)
class ObservedDigits:
    """Observations of some held-out digits, and who judges what is made of them."""

    denoiser: Denoiser
    judge: Classifier
    constraint: Linear
    noise: Tensor
    images: Tensor
    labels: Tensor
    real: Tensor
    """Features of real digits, none of which is observed."""

    def select(self, part: slice) -> ObservedDigits:
        """Return the same of some of the digits."""
        return ObservedDigits(
            self.denoiser,
            self.judge,
            self.constraint.select(part),
            self.noise[part],
            self.images[part],
            self.labels[part],
            self.real,
        )

    def distance(self, images: Tensor) -> Tensor:
        """Return the distance of each image to the nearest real digit in the judge's features."""
        with torch.no_grad():
            return torch.cdist(self.judge.features(images.clamp(-1, 1)), self.real).amin(1)

    def solve(self, newton: Newton, times: int) -> Arrays:
        """Sample, and return the path, (digits, states), the passes, the samples, and their scores,
        (digits,).
        """
        found = follow(self, newton, times)
        drawn = torch.from_numpy(found["images"]).to(self.images)
        failed = np.isnan(found["images"]).any((1, 2, 3))
        scored = scores(drawn.nan_to_num(), self.images, self.labels, self.judge) | {
            "distance": self.distance(drawn.nan_to_num()).cpu().numpy()
        }
        return (
            found
            | {key: np.where(failed, np.nan, value) for key, value in scored.items()}
            | {
                "residual": found["residuals"][:, -1],
                "size": found["sizes"].max(1),
                "times": np.array(times),
            }
        )


def follow(problem: ObservedDigits, newton: Newton, times: int) -> Arrays:
    """Sample; return each state's "residuals" and "sizes", |x_t| relative to what the true digit's
    would be, and "images".

    Where a digit diverges the others go on without it, and it has NaN from there.
    """
    schedule, square = problem.denoiser.schedule, problem.images.square().mean((1, 2, 3))
    states = times * newton.steps + 1
    residuals, sizes = (np.full((len(problem.noise), states), np.nan) for _ in range(2))
    passes = np.zeros((states, 3), dtype=int)
    images = np.full(problem.images.shape, np.nan, dtype=np.float32)
    try:
        for k, state in enumerate(
            sample(
                problem.denoiser, problem.noise, schedule.times(times), problem.constraint, newton
            )
        ):
            assert state.residual is not None
            alpha_t, sigma_t = (float(c) for c in schedule(state.t))
            size = state.x_t.square().mean((1, 2, 3)) / (alpha_t**2 * square + sigma_t**2)
            residuals[:, k], sizes[:, k] = state.residual.cpu().numpy(), size.sqrt().cpu().numpy()
            passes[k] = state.spent.forward, state.spent.jvp, state.spent.vjp
            if k == states - 1:
                images = state.x0.cpu().numpy()
    except DivergenceError:
        if len(problem.noise) > 1:
            middle = len(problem.noise) // 2
            a, b = (
                follow(problem.select(part), newton, times)
                for part in (slice(None, middle), slice(middle, None))
            )
            return {
                key: (
                    np.maximum(a[key], b[key])
                    if key == "passes"
                    else np.concatenate([a[key], b[key]])
                )
                for key in a
            }
    return {"residuals": residuals, "sizes": sizes, "passes": passes, "images": images}
