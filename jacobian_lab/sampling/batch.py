"""A batch of samples on their way: one that diverges is dropped, one that has met its constraint
rests, and the others go on as if alone.

All samples that move at a time share a pass of the network, and nothing else. Once they are fewer
than the batch, so is the pass. What decides about them comes from the device in one transfer for
each evaluation of D.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from jacobian_lab.constraints.base import Constraint
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import ConvergenceWarning, DivergenceError
from jacobian_lab.linops.batch_jacobian import BatchJacobian, Spent
from jacobian_lab.sampling.newton import Newton, newton_step


class Batch:
    """Noisy samples at a time, their posterior means, and what is missing of the constraint.

    Parameters
    ----------
    denoiser : Denoiser
    x_t : Tensor, shape (B, *shape)
    constraint : Constraint or None
    newton : Newton

    Attributes
    ----------
    x_t, x0 : Tensor, shape (B, *shape)
        The noisy samples and D(x_t); NaN for those that diverged.
    residual : Tensor, shape (B,), or None
        The constraint's; that at which a sample diverged is told once, then NaN.
    alive : Tensor of bool, shape (B,)
        False for those that diverged.
    """

    def __init__(
        self, denoiser: Denoiser, x_t: Tensor, constraint: Constraint | None, newton: Newton
    ) -> None:
        self.denoiser, self.constraint, self.newton = denoiser, constraint, newton
        self.x_t, self.x0 = x_t, x_t
        self.residual = None if constraint is None else x_t.new_full((len(x_t),), torch.nan)
        self.alive = torch.ones(len(x_t), dtype=torch.bool, device=x_t.device)
        # masks on the CPU: asking them costs no transfer
        self._alive = self._moved = self._unmet = torch.ones(len(x_t), dtype=torch.bool)
        self._passes = np.zeros((len(x_t), 3), dtype=int)
        self._trace: list[tuple[float, Tensor | None]] = []
        self._part = (self._alive, constraint)
        self._J: BatchJacobian | None = None

    @property
    def spent(self) -> Spent:
        """What was computed so far, the mean over those alive."""
        mean = self._passes[self._alive.numpy()].mean(0)
        return Spent(*(int(passes) if passes.is_integer() else float(passes) for passes in mean))

    def arrive(self, x_t: Tensor) -> None:
        """Go on at another time, with all that are alive."""
        self.x_t, self._moved = x_t, self._alive

    def evaluate(self, t: int | float, last_step: bool = False, project: bool = False) -> None:
        """Compute D(x_t, t) of those that moved since, and drop those that diverged.

        Parameters
        ----------
        t : int or float
        last_step : bool
            No Newton step follows at this time.
        project : bool
            Move D(x_t) to the nearest images that fulfil the constraint.

        Raises
        ------
        DivergenceError
            If none is left.

        Warns
        -----
        ConvergenceWarning
            If some are dropped.
        """
        some = self._moved
        if self.residual is not None and not self._alive.all():
            self.residual = self.residual.masked_fill(~self.alive, torch.nan)
        if some.any():
            self._denoise(t, some, last_step)
        self._measure(self._alive if project else some, project)
        self._trace.append((float(t), self.residual))
        if some.any():
            self._judge(t, some)

    def step(self, progress: float) -> None:
        """Take a Newton step with those that have not met the constraint; the others rest until
        they `arrive` at another time.
        """
        some, self._moved = self._moved, self._moved & self._unmet
        if not self._moved.any():
            return
        assert self._J is not None
        J = self._J if self._moved.equal(some) else self._J.select(self._moved[some])
        wanted = self._wanted(self._moved)
        assert wanted is not None
        moved = newton_step(J, wanted, self.newton, progress)
        self.x_t = _put(self.x_t, moved, self._moved)
        self._count(J, self._moved)

    def _denoise(self, t: int | float, some: Tensor, last_step: bool) -> None:
        first, newton = self._J is None, self.newton
        self._J = BatchJacobian(
            self.denoiser,
            _of(self.x_t, some),
            t,
            "forward" if last_step else newton.products,
            newton.direction in ("gradient", "exact") and not last_step,
            like=self._J,
        )
        if first:
            self._J.guard()
        self.x0 = _put(self.x0, self._J.d, some)
        self._count(self._J, some)

    def _measure(self, some: Tensor, project: bool) -> None:
        """Take the residuals of some, who may be projected before."""
        wanted = self._wanted(some)
        if wanted is None or self.residual is None or not some.any():
            return
        x0 = _of(self.x0, some)
        if project:
            x0 = wanted.project(x0)
            self.x0 = _put(self.x0, x0, some)
        self.residual = _put(self.residual, wanted.residual(x0), some)

    def _judge(self, t: int | float, some: Tensor) -> None:
        """Drop those of whom x_t, over the schedule's scale and expected to be about 1, has a root
        mean square above eps^(-1/2), so that half of its digits are lost to an image, or whose x0
        is not finite; note who has not met the constraint.
        """
        x_t, x0 = _of(self.x_t, some), _of(self.x0, some)
        size = (x_t / float(self.denoiser.schedule.scale(t))).flatten(1).square().mean(1).sqrt()
        bad = ~(size < torch.finfo(size.dtype).eps ** -0.5) | ~x0.flatten(1).isfinite().all(1)
        unmet = ~bad
        if self.residual is not None and self.newton.tolerance:
            unmet = unmet & ~(_of(self.residual, some) <= self.newton.tolerance)
        bad, unmet = torch.stack([bad, unmet]).cpu()
        if bad.any():
            self._drop(t, some.nonzero()[:, 0][bad], float(size[bad.nonzero()[0, 0]]))
        self._unmet = _put(torch.zeros_like(some), unmet, some)

    def _drop(self, t: int | float, dead: Tensor, size: float) -> None:
        self._alive = self._alive.index_fill(0, dead, False)
        names = ", ".join(map(str, dead.tolist()))
        why = (
            f"at t = {t}: the root mean square of x_t is {size:.3g} times that of unit data and"
            " noise. Take a smaller step size, or a rule that adapts: Dynamic, Backtracking"
        )
        if not self._alive.any():
            trace = [(t, [] if r is None else r.tolist()) for t, r in self._trace]
            raise DivergenceError(f"sample {int(dead[0])} diverged {why}", trace)
        warnings.warn(
            f"sample{'s' if len(dead) > 1 else ''} {names} of {len(self._alive)} diverged {why}."
            f" The other {int(self._alive.sum())} go on",
            ConvergenceWarning,
            stacklevel=6,  # past the generator, and the torch.no_grad around it
        )
        self.alive = self._alive.to(self.alive.device)
        gone = (~self.alive).reshape(-1, *[1] * (self.x_t.ndim - 1))
        self.x_t, self.x0 = (x.masked_fill(gone, torch.nan) for x in (self.x_t, self.x0))

    def _wanted(self, some: Tensor) -> Constraint | None:
        """Return the constraint of some, one object for as long as they are the same."""
        if self.constraint is not None and not self._part[0].equal(some):
            wanted = self.constraint
            if not some.all():
                wanted = wanted.select(some.to(self.alive.device))
            self._part = some, wanted
        return self._part[1]

    def _count(self, J: BatchJacobian, some: Tensor) -> None:
        self._passes[some.numpy()] += [J.spent.forward, J.spent.jvp, J.spent.vjp]
        J.spent = Spent()


def _of(full: Tensor, some: Tensor) -> Tensor:
    """Return the entries of some samples."""
    return full if some.all() else full[some.to(full.device)]


def _put(full: Tensor, part: Tensor, some: Tensor) -> Tensor:
    """Return the entries of all samples, with those of some in their places."""
    return part if some.all() else full.index_copy(0, some.nonzero()[:, 0].to(full.device), part)
