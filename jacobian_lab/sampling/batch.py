"""A batch of samples on their way: one that diverges is dropped, one that has met its constraint
rests, and the others go on as if alone.

All samples that move at a time share a pass of the network, and nothing else. Once they are fewer
than the batch, so is the pass. Whether somebody stops is one transfer from the device for each
evaluation of D.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.constraints.base import Constraint, LinearConstraint
from jacobian_lab.constraints.observations import widened
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.errors import ConvergenceWarning, DivergenceError, InputError
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.linops.spent import Spent
from jacobian_lab.sampling.conditional import conditional_mean
from jacobian_lab.sampling.newton import Newton, newton_step


class Some:
    """Some samples of a batch, by a mask on the CPU: it is asked without a transfer."""

    def __init__(self, mask: Tensor, device: torch.device) -> None:
        self.mask, self.every, self.none = mask, bool(mask.all()), not mask.any()
        self.index = mask.nonzero()[:, 0].to(device)

    def of(self, every: Tensor) -> Tensor:
        """Return their entries."""
        return every if self.every else every[self.index]

    def put(self, every: Tensor, theirs: Tensor) -> Tensor:
        """Return the entries of all, with theirs in their places."""
        return theirs if self.every else every.index_copy(0, self.index, theirs)


class Batch:
    """Noisy samples at a time, their posterior means, and what is missing of the constraint.

    Parameters
    ----------
    denoiser : Denoiser
    x_t : Tensor, shape (B, *shape)
    t : int or float
    constraint : Constraint or None
    newton : Newton

    Attributes
    ----------
    x_t, x0 : Tensor, shape (B, *shape)
        The noisy samples and D(x_t); NaN for those that diverged.
    residual : Tensor, shape (B,), or None
        The constraint's; that at which a sample diverged is told once, then NaN.
    unsolved : Tensor, shape (B,), or None
        Of fair samples, `ConditionalMean.unsolved`.
    alive : Tensor of bool, shape (B,)
        False for those that diverged.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: int | float,
        constraint: Constraint | None,
        newton: Newton,
    ) -> None:
        self.denoiser, self.constraint, self.newton = denoiser, constraint, newton
        self.x0 = x_t
        self.residual = None if constraint is None else x_t.new_full((len(x_t),), torch.nan)
        self.unsolved = self.residual if newton.aim == "fair" else None
        self.alive = torch.ones(len(x_t), dtype=torch.bool, device=x_t.device)
        self._alive = self._moved = self._going = Some(self.alive.cpu(), x_t.device)
        self._shared = Spent()  # by all of them; and apart, by some
        self._apart = np.zeros((len(x_t), 3), dtype=int)
        self._trace: list[tuple[float, Tensor | None]] = []
        self._part = self._alive, constraint
        self._J: BatchJacobian | None = None
        self.arrive(t, x_t)

    @property
    def spent(self) -> Spent:
        """What was computed so far, the mean over those alive."""
        found = self._shared.copy()
        if self._apart.any():
            found.add(Spent(*self._apart[self._alive.mask.numpy()].mean(0).tolist()))
        return found

    def arrive(self, t: int | float, x_t: Tensor) -> None:
        """Go on at another time, with all that are alive."""
        self.t, self.x_t, self._moved = t, x_t, self._alive
        self._scale = float(self.denoiser.schedule.scale(t))

    def evaluate(self, last_step: bool = False, project: bool = False) -> None:
        """Compute D(x_t, t) of those that moved since, and drop those that diverged.

        Parameters
        ----------
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
        if self.residual is not None and not self._alive.every:
            self.residual = self.residual.masked_fill(~self.alive, torch.nan)
        if not some.none:
            self._denoise(some, last_step)
        self._measure(self._alive if project else some, project)
        self._trace.append((float(self.t), self.residual))
        if not some.none:
            self._judge(some)
            assert self._J is not None
            self._J.spent.forward += self._J.one.settle()  # the device has been waited for
            self._count(self._J, some)

    def step(self, progress: float) -> None:
        """Take a Newton step with those that have not met the constraint; the others rest until
        they `arrive` at another time.
        """
        some, going = self._moved, self._going
        self._moved = going
        if going.none or some.none:
            return
        assert self._J is not None
        J = self._J if going is some else self._J.select(going.mask[some.mask])
        wanted = self._wanted(going)
        assert wanted is not None
        self.x_t = going.put(self.x_t, newton_step(J, wanted, self.newton, progress))
        self._count(J, going)

    def _denoise(self, some: Some, last_step: bool) -> None:
        first, newton = self._J is None, self.newton
        self._J = BatchJacobian(
            self.denoiser,
            some.of(self.x_t),
            self.t,
            "forward" if last_step and newton.aim != "fair" else newton.products,
            newton.direction in ("gradient", "exact") and not last_step,
            like=self._J,
        )
        if first:
            self._J.guard()
        x0, wanted = self._J.d, self._wanted(some)
        if self.unsolved is not None:
            assert isinstance(wanted, LinearConstraint)
            x0, unsolved = conditional_mean(self._J, wanted, newton.krylov_steps)
            self.unsolved = some.put(self.unsolved, unsolved)
        self.x0 = some.put(self.x0, x0)
        self._count(self._J, some)

    def _measure(self, some: Some, project: bool) -> None:
        """Take the residuals of some, who may be projected before."""
        wanted = self._wanted(some)
        if wanted is None or self.residual is None or some.none:
            return
        x0 = some.of(self.x0)
        if project:
            x0 = wanted.project(x0)
            self.x0 = some.put(self.x0, x0)
        residual = wanted.residual(x0)
        if getattr(residual, "shape", None) != x0.shape[:1]:  # samples would be mixed
            raise InputError(
                f"the residual of {type(wanted).__name__} is {_require.shown(residual)}: expected"
                f" shape ({len(x0)},), one number for each sample"
            )
        self.residual = some.put(self.residual, residual)

    def _judge(self, some: Some) -> None:
        """Drop those of whom x_t, over the schedule's scale and expected to be about 1, has a root
        mean square above eps^(-1/2), so that half of its digits are lost to an image, or whose x0
        is not finite; note who has not met the constraint.
        """
        size = widened(some.of(self.x_t) / self._scale).flatten(1).square().mean(1).sqrt()
        bad = ~(size < _most(self.x_t))
        bad = bad | ~some.of(self.x0).flatten(1).isfinite().all(1)
        stops = bad
        if self.residual is not None and self.newton.tolerance:
            stops = bad | (some.of(self.residual) <= self.newton.tolerance)
        self._going = some
        if not stops.any():  # the one transfer, unless somebody stops
            return
        bad = bad.cpu()
        if bad.any():
            self._drop(some.mask.nonzero()[:, 0][bad], float(size[int(bad.nonzero()[0])]))
        self._going = Some(some.mask.masked_scatter(some.mask, ~stops.cpu()), size.device)

    def _drop(self, dead: Tensor, size: float) -> None:
        left = self._alive.mask.index_fill(0, dead, False)
        names = ", ".join(map(str, dead.tolist()))
        known = ", and D(x_t) is not finite" if size < _most(self.x_t) else ""
        why = (
            f"at t = {self.t}: the root mean square of x_t is {size:.3g} times that of unit data"
            f" and noise{known}. Take a smaller step size, or a rule that adapts: Dynamic,"
            " Backtracking"
        )
        if not left.any():
            trace = [(t, [] if r is None else r.tolist()) for t, r in self._trace]
            raise DivergenceError(f"sample {int(dead[0])} diverged {why}", trace)
        warnings.warn(
            f"sample{'s' if len(dead) > 1 else ''} {names} of {len(left)} diverged {why}. The"
            f" other {int(left.sum())} go on",
            ConvergenceWarning,
            stacklevel=6,  # past the generator, and the torch.no_grad around it
        )
        self.alive = left.to(self.alive.device)
        self._alive = Some(left, self.alive.device)
        gone = (~self.alive).reshape(-1, *[1] * (self.x_t.ndim - 1))
        self.x_t, self.x0 = (x.masked_fill(gone, torch.nan) for x in (self.x_t, self.x0))

    def _wanted(self, some: Some) -> Constraint | None:
        """Return the constraint of some, one object for as long as they are the same."""
        if self.constraint is not None and self._part[0] is not some:
            mask = some.mask.to(self.alive.device)
            self._part = some, self.constraint if some.every else self.constraint.select(mask)
        return self._part[1]

    def _count(self, J: BatchJacobian, some: Some) -> None:
        if some.every:
            self._shared.add(J.spent)
        else:
            self._apart[some.mask.numpy()] += [J.spent.forward, J.spent.jvp, J.spent.vjp]
        J.spent = Spent()


def _most(x: Tensor) -> float:
    """Return the size of x_t, relative to that expected, at which half of the digits are lost."""
    return float(torch.finfo(x.dtype).eps ** -0.5)
