r"""The Jacobian of a batch of samples: block diagonal, `J = diag(J_1, ..., J_B)`, with what its products cost.

    J = BatchJacobian(denoiser, x_t, t)     x_t (B, C, H, W)
    J.d                                     D(x_t, t): one forward pass
    J.jvp(v)                                J_b v_b for each sample, its own vector: one forward pass as a finite difference
    J.vjp(u)                                J_b^T u_b: one backward pass

`JacobianOperator` is one block with many vectors; this is many blocks with a vector each, what a sampler needs. No graph is
kept unless `J^T u` is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab.denoiser import Denoiser
from jacobian_lab.fallbacks import Differences, DoubleBackward, ForwardMode, Function
from jacobian_lab.linear import UnsupportedError
from jacobian_lab.linearise import Linearisation
from jacobian_lab.linops import JacobianOperator
from jacobian_lab.products import Method, differentiable
from jacobian_lab.schedule import Time


@dataclass
class Spent:
    """What was computed so far, in passes of the whole batch."""

    forward: int = 0
    """Forward passes of the denoiser."""
    jvp: int = 0
    """Exact products J v; a finite difference counts as the forward passes that it is."""
    vjp: int = 0
    """Exact products J^T u: backward passes."""

    @property
    def evaluations(self) -> int:
        """All passes together."""
        return self.forward + self.jvp + self.vjp

    def copy(self) -> Spent:
        """Return the present figures."""
        return replace(self)


class BatchJacobian:
    """`diag(J_1, ..., J_B)` at a batch of noisy samples, all at one time.

    Parameters
    ----------
    denoiser : Denoiser
    x_t : Tensor, shape (B, C, H, W)
    t : int or float
    products : {"exact", "forward", "central"}
        How `J v` is computed; a forward difference, one pass, by default.
    graph : bool
        Compute D(x_t) with its graph, so that `J^T u` costs a backward pass and nothing else.
    spent : Spent, optional
        Where passes are counted; an own count by default.
    """

    def __init__(self, denoiser: Denoiser, x_t: Tensor, t: Time, products: Method = "forward", graph: bool = False,
                 spent: Spent | None = None) -> None:
        self.denoiser, self.x, self.t, self.method, self.graph = denoiser, x_t.detach(), t, products, graph
        self.spent = Spent() if spent is None else spent
        self._function: Function = partial(denoiser, t=t)  # a method would tie self and the graphs into a cycle, freed late
        self._d: Tensor | None = None
        self._linear: Linearisation | ForwardMode | None = None
        self._reverse: DoubleBackward | None = None

    @property
    def d(self) -> Tensor:
        """D(x_t, t), (B, C, H, W), detached."""
        if self._d is None:
            if self.graph:
                self._d = self._reversed().primal(len(self.x)).detach()
            elif self.method == "exact":
                self._d = self._linearised()
            else:
                self._d = self.denoise(self.x)
        return self._d

    def denoise(self, x: Tensor) -> Tensor:
        """Return D at other points of the same time: one forward pass."""
        self.spent.forward += 1
        with torch.no_grad():
            return self.denoiser(x, self.t)

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J_b v_b`, (B, C, H, W)."""
        if self.method != "exact":
            self.spent.forward += 1 if self.method == "forward" else 2
            at = self.d if self.method == "forward" else None
            return Differences(self._function, self.x, self.method, value=at).jvp(v)
        if self._linear is None:
            self._d = self._linearised()
        assert self._linear is not None
        self.spent.jvp += 1
        with differentiable(), torch.no_grad():
            return self._linear.jvp(v[None])[0] if isinstance(self._linear, Linearisation) else self._linear.jvp(v)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J_b^T u_b`, (B, C, H, W)."""
        self.spent.vjp += 1
        with differentiable():
            return self._reversed().vjp(u)

    def dense(self) -> Tensor:
        """Return the blocks, (B, n, n), row by row: n backward passes."""
        units = torch.eye(self.x[0].numel(), dtype=self.x.dtype, device=self.x.device).reshape(-1, *self.x.shape[1:])
        return torch.stack([self.vjp(unit.expand_as(self.x)).flatten(1) for unit in units], dim=1)

    def block(self, i: int) -> JacobianOperator:
        """Return J_i as an n x n operator, with exact products. Its passes are not counted here: they are of one sample."""
        return JacobianOperator(self.denoiser, self.x[i:i + 1], self.t)

    def on_arrays(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `J_b v_b` for numpy vectors, (B, n): what `jacobian_lab.batched` works on."""
        return self.arrays(self.jvp(self.images(v)))

    def images(self, v: NDArray[np.float64]) -> Tensor:
        """Return numpy vectors, (B, n), as images, in the dtype and on the device of x_t."""
        return torch.from_numpy(v).to(self.x).reshape(self.x.shape)

    @staticmethod
    def arrays(v: Tensor) -> NDArray[np.float64]:
        """Return images as numpy vectors, (B, n)."""
        return np.asarray(v.detach().cpu().double().flatten(1).numpy())

    def _linearised(self) -> Tensor:
        """Record the network at the batch, or fall back on forward mode; return D(x_t)."""
        self.spent.forward += 1
        with differentiable():
            try:
                self._linear = Linearisation(self._function, self.x)
                return self._linear.value
            except (UnsupportedError, RuntimeError, NotImplementedError, TypeError, AttributeError):
                self._linear = ForwardMode(self._function, self.x)
        with torch.no_grad():
            return self._function(self.x)

    def _reversed(self) -> DoubleBackward:
        if self._reverse is None:
            self.spent.forward += 1
            with differentiable():
                self._reverse = DoubleBackward(self._function, self.x)
                self._reverse.primal(len(self.x))
        return self._reverse
