"""Observations of held-out digits, what a sampler makes of them by given Newton steps, and how that
scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jacobian_lab import Denoiser
from jacobian_lab.constraints.base import LinearConstraint
from jacobian_lab.sampling.newton import Newton
from mnist.classifier import Classifier
from studies.frame.statistics import scores
from studies.frame.study import Arrays
from studies.sampling.trajectories import trajectory


@dataclass(frozen=True)
class ObservedDigits:
    """Observations of some held-out digits, and who judges what is made of them."""

    denoiser: Denoiser
    judge: Classifier
    constraint: LinearConstraint
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
        """Sample; return each state's "residuals" and "sizes", |x_t| relative to what the true
        digit's would be, (digits, states), the passes, the samples, and their scores, (digits,).
        """
        schedule, square = self.denoiser.schedule, self.images.square().mean((1, 2, 3))
        at = schedule.times(times)
        found = trajectory(self.denoiser, self.constraint, self.noise, at, newton)
        sizes = torch.from_numpy(found["mean_square"]).to(self.images)
        for k in range(sizes.shape[1]):
            alpha_t, sigma_t = (float(c) for c in schedule(at[min(k // newton.steps, times - 1)]))
            sizes[:, k] = (sizes[:, k] / (alpha_t**2 * square + sigma_t**2)).sqrt()
        drawn = torch.from_numpy(found["x0"][:, -1]).to(self.images)
        failed = drawn.isnan().flatten(1).any(1).cpu().numpy()
        scored = scores(drawn.nan_to_num(), self.images, self.labels, self.judge) | {
            "distance": self.distance(drawn.nan_to_num()).cpu().numpy()
        }
        reached = np.isfinite(found["mean_square"])
        residuals = np.where(reached, found["residual"], np.nan)
        return {key: np.where(failed, np.nan, value) for key, value in scored.items()} | {
            "residuals": residuals,
            "sizes": sizes.cpu().double().numpy(),
            "passes": found["passes"].max(0),
            "images": found["x0"][:, -1],
            "residual": residuals[:, -1],
            "size": sizes.cpu().double().numpy().max(1),
            "times": np.array(times),
        }
