"""What an audit looks at: the operator, its network at one time, the rounding of both."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.linops.jacobian import JacobianOperator

Array: TypeAlias = NDArray[np.float64]
TINY = 1e-300
"""Takes the place of a divisor 0: zero over zero is then 0, and anything else is huge."""


class Subject:
    """The operator, its network F at that time, and sizes of rounding."""

    def __init__(self, J: JacobianOperator) -> None:
        self.J, self.x, self.t, self.denoiser = J, J.products.x, J.products.t, J.products.denoiser
        self.ladder = J.products.ladder
        self.c_x, self.c_out = (float(c) for c in self.denoiser.coefficients(self.x, self.t))
        self.n = J.shape[0]
        self.own, self.eps = float(torch.finfo(self.x.dtype).eps), self.ladder.eps
        # differences are as far off as that
        self.loose = 10 * J.product_error if J.path.endswith("difference") else 0.0
        self.rounding = 30 * self.eps * max(float(np.sqrt(self.n)), 10.0)

    @torch.no_grad()
    def output(self, x: Tensor, t: Time | None = None) -> Tensor:
        """Return F(x, t), at the operator's time by default."""
        return self.denoiser.output(x, self.t if t is None else t)

    def tensor(self, a: Array) -> Tensor:
        """Return rows, (K, n), as images, in the dtype and on the device of x_t."""
        return torch.from_numpy(np.ascontiguousarray(a)).to(self.x).reshape(-1, *self.x.shape[1:])

    def of_network(self, Jv: Array, v: Array) -> Tensor:
        """Return F' v for rows v of products J v: what is left of them without the linear part of
        D.
        """
        scale = self.c_out if self.c_out else 1.0
        return (
            torch.from_numpy((Jv - self.c_x * v) / scale)
            .to(self.x.device)
            .reshape(-1, *self.x.shape[1:])
        )

    def cancellation(self, Jv: Array, v: Array) -> float:
        """Return the rounding of F' v that comes of J v and c_x v cancelling, relative to it."""
        network = float(np.linalg.norm(Jv - self.c_x * v)) or TINY
        return 10 * self.own * abs(self.c_x) * float(np.linalg.norm(v)) / network


def apart(a: Tensor, b: Tensor) -> float:
    """Return |a - b| / |b|."""
    return float((a.double() - b.double()).norm()) / (float(b.double().norm()) or TINY)


def length(a: Array) -> float:
    """Return |a|, or `TINY` for zero: a divisor."""
    return float(np.linalg.norm(a)) or TINY


def ratio(a: Array, b: Array) -> float:
    """Return |a| / |b|."""
    return float(np.linalg.norm(a)) / length(b)
