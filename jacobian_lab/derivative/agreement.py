r"""Whether products agree with differences of the network's own output F, as far as differences can
tell.

    d_h = (F(x + h v) - F(x - h v)) / (2 h)

F, not the posterior mean D = c_x x + c_out F: there the linear part, which is right by itself,
hides errors of the network's. A first step h is enough where `|F' v - d_h|` is what differences in
that precision resolve. Where it is more, a sweep over steps tells the resolution: the least change
from one step to the next, which truncation bounds above and rounding below.

References
----------
Higham (2002), *Accuracy and stability of numerical algorithms*, section 1.14; More, Wild (2012),
*Estimating derivatives of noisy simulations*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from jacobian_lab.derivative.probes import foreign, unit

Function: TypeAlias = Callable[[Tensor], Tensor]
CLOSE = 40.0
"""In units of `eps**(2/3)`, the error of a central difference at its best step: a relative
difference that settles the matter at the first step, 1e-3 in float32 and 1.5e-9 in float64. The
factor covers third derivatives larger than the first.
"""
ROUGH = 1e-2
"""Upper bound of that relative difference: networks in half precision, for which it would be 0.4
and more, take the sweep.
"""
MULTIPLES = (30.0, 10.0, 3.0, 1.0, 1 / 3, 0.1, 1 / 30)
"""Steps of the sweep, in units of the first one: three decades in half decades, since the best step
depends on derivatives that are not known.
"""
BETWEEN = 0.6
"""Steps of a second sweep, in units of those of the first: other roundings."""
NARROWLY = 10.0
"""How many limits apart products may lie for a second sweep: neighbouring steps may agree by chance
to more digits than they have, once in some thousand sweeps.
"""
MARGIN = 3.0
"""How many resolutions apart products may lie: the resolution is estimated from two neighbouring
steps, which may agree a little better than either is exact.
"""
ROUNDING = 30.0
"""Rounding in the output of a network, in units of eps: errors of a deep network accumulate."""
FLAT = 10.0
"""In units of that rounding: a change of the output that is larger cannot be rounding, so that a
network with a zero derivative is piecewise constant.
"""
RESOLVED = 1 / 3
"""Share of a product: differences whose resolution is coarser say nothing of it."""
NOISY = 2
"""Pairs of the smallest steps from which the rounding of F is read off: one may agree by chance."""
TOGETHER = 8
"""Points of one pass at most: the first comparison needs three, and more would take memory that the
products themselves may not need.
"""


@dataclass(frozen=True)
class Verdict:
    """What a comparison found."""

    agrees: bool
    error: float
    """Largest distance over the pairs, relative to the product: how far differences confirm it, and
    no farther.
    """
    flat: bool = False
    """Whether the derivative is zero though the output is not constant: the network is piecewise
    constant.
    """
    resolved: bool = True
    """Whether differences resolve the products at all, to a third of their size."""


@dataclass(frozen=True)
class Sweep:
    """Products beside differences of falling steps, for m pairs of a sample and a direction."""

    gaps: Tensor
    """`|F' v - d_h|`, shape (steps, m)."""
    own: Tensor
    """`|F' v|`, and at least the size of rounding, shape (m,)."""
    limit: Tensor
    """How far products and differences may lie apart, shape (m,): three times what differences
    resolve, or a constant.
    """
    flat: Tensor
    """Whether the derivative is zero though the largest step changes the output, shape (m,)."""

    @property
    def least(self) -> Tensor:
        """The smallest gap over the steps, shape (m,)."""
        return self.gaps.amin(0)


class Comparison:
    """Central differences of F at samples x_i along directions v_i, i = 1 ... m.

    Parameters
    ----------
    function : callable
        F, from (B, ...) to the same shape.
    x : Tensor, shape (m, ...) or (1, ...)
    v : Tensor, shape (m, ...)
    eps : float
        Of the coarsest precision in which F computes: the first step is `eps**(1/3)` of the length
        of x.
    scale : float
        Root mean square that x has by its schedule; the step is not taken of a shorter x.
    onto : Tensor, shape (m, ...), optional
        Compare only the components along these, (m, 1): those of `F' v` along u are `<F'^T u, v> /
        |u|`.
    most : int
        Points of one pass at most.
    together : bool
        Whether to try more than one.

    Attributes
    ----------
    value : Tensor, of the shape of x
        F at x, evaluated together with other points.
    together : bool
        Whether F takes a batch of these samples at all.
    """

    def __init__(
        self,
        function: Function,
        x: Tensor,
        v: Tensor,
        eps: float,
        scale: float = 1.0,
        onto: Tensor | None = None,
        most: int = TOGETHER,
        together: bool = True,
    ) -> None:
        self.function, self.x, self.v, self.eps, self.together = function, x, v, eps, together
        self._most = most
        self._onto = None if onto is None else unit(onto.double().flatten(1))
        length = _norms(x).clamp(min=0.1 * scale * x[0].numel() ** 0.5)
        size = _norms(v)
        self._h = (length / torch.where(size > 0, size, 1)).reshape(-1, *(1,) * (x.ndim - 1))
        self._found: dict[float, Tensor] = {}
        self.value = self._first()

    @property
    def close(self) -> float:
        """How far products may lie from the difference of the first step, relative to its size,
        without more ado.
        """
        return float(min(CLOSE * self.eps ** (2 / 3), ROUGH))

    @property
    def step(self) -> float:
        """The first step, relative to the length of x."""
        return float(self.eps ** (1 / 3))

    def apart(self) -> Comparison:
        """Evaluate one point at a time from now on: the samples of a batch see each other. Return
        itself.
        """
        self.together = False
        self._found.clear()
        self.value = self._first()
        return self

    def verdict(self, products: Tensor) -> Verdict:
        """Return whether `F'(x_i) v_i`, (m, ...), or their components, (m, 1), agree with the
        differences.
        """
        first, floor = self.difference(1.0), self._floor()
        gap, size, own = (_norms(a) for a in (products - first, first, products))
        # the rounding of half precision may be the size of products: it is no zero
        fine = floor * min(1, torch.finfo(torch.float32).eps / self.eps)
        nothing = (own <= fine) & (size <= fine / self.step)
        near = torch.maximum(self.close * size, fine.maximum(floor.minimum(RESOLVED * own)))
        if bool(((gap <= near) | nothing).all()):
            flat = bool((own <= fine).any()) and self._varies()
            error = (gap / torch.maximum(size, fine)).masked_fill(nothing, 0)
            return Verdict(True, float(error.max()), flat)
        found = self.sweep(products)
        if NARROWLY >= float((found.least / found.limit).max()) > 1:
            found = self.sweep(products, tuple(BETWEEN * multiple for multiple in MULTIPLES))
        return Verdict(
            bool((found.least <= found.limit).all()),
            float((found.least / own.maximum(fine)).max()),
            bool(found.flat.any()),
            bool((found.limit <= RESOLVED * found.own).all()),
        )

    def sweep(self, products: Tensor, multiples: tuple[float, ...] = MULTIPLES) -> Sweep:
        """Compare `F'(x_i) v_i`, (m, ...), with differences of all these steps, in units of the
        first one, falling.
        """
        # Three departures from the textbook's one step of size eps**(1/3):
        # 1. derivatives of F are unknown, and so is the best step: the least gap of a sweep counts;
        # 2. the error of the differences is not assumed but read off neighbouring steps;
        # 3. products below rounding are zero, not wrong, and are compared with `floor`.
        steps, floor = [self.difference(multiple) for multiple in multiples], self._floor()
        gaps, sizes = (
            torch.stack([_norms(d) for d in many])
            for many in ([products - d for d in steps], steps)
        )
        gaps, own = gaps.nan_to_num(torch.inf, torch.inf), _norms(products)
        resolution = _changes(steps, sizes, multiples).amin(0)
        limit = torch.maximum(torch.maximum(self.close * own, MARGIN * resolution), floor)
        flat = (own <= floor) & (sizes[0] * multiples[0] * self.step > FLAT * floor)
        return Sweep(gaps, torch.maximum(own, floor), limit, flat)

    def best(self) -> tuple[float, float]:
        """Return the step that differences resolve most with, relative to the length of x, and
        their error there.

        The error is twice the change from the next larger step: where truncation rules, the change
        is nearly the error of the larger one; where rounding rules, of the smaller one; and other
        directions may be worse than these.
        """
        steps = [self.difference(multiple) for multiple in MULTIPLES]
        sizes = torch.stack([_norms(d) for d in steps])
        changes = _changes(steps, sizes, MULTIPLES)
        relative = (
            (changes / sizes[1:].clamp(min=torch.finfo(sizes.dtype).tiny))
            .nan_to_num(torch.inf)
            .amax(1)
        )
        i = int(relative.argmin())
        return MULTIPLES[i + 1] * self.step, 2 * float(relative[i])

    def difference(self, multiple: float) -> Tensor:
        """Return d_h, (m, ...), in float64, h the first step times the multiple."""
        if multiple not in self._found:
            h = (multiple * self.step * self._h).to(self.x.dtype)
            outputs = self._evaluate(torch.cat([self.x + h * self.v, self.x - h * self.v]))
            self._found[multiple] = self._central(outputs, h)
        return self._found[multiple]

    def _floor(self) -> Tensor:
        """Return the size of products that are nothing but rounding: that of F over a step of the
        length of x, (m,).
        """
        change = ROUNDING * self.eps * _norms(self.value)
        return (change / self._h.flatten().double()).clamp(min=torch.finfo(torch.float64).tiny)

    def _first(self) -> Tensor:
        """Evaluate x and what the first difference needs in one pass."""
        h = (self.step * self._h).to(self.x.dtype)
        outputs = self._evaluate(torch.cat([self.x + h * self.v, self.x - h * self.v, self.x]))
        self._found[1.0] = self._central(outputs[: 2 * len(self.v)], h)
        return outputs[2 * len(self.v) :]

    def _varies(self) -> bool:
        """Return whether F is another one elsewhere: one more pass."""
        elsewhere = self._evaluate(foreign(self.x[:1]))
        change = _norms(elsewhere - self.value[:1])
        return bool((change > FLAT * ROUNDING * self.eps * _norms(self.value[:1])).any())

    def _central(self, outputs: Tensor, h: Tensor) -> Tensor:
        ahead, behind = outputs.double().chunk(2)
        d = (ahead - behind) / (2 * h.double())
        return d if self._onto is None else (d.flatten(1) * self._onto).sum(1, keepdim=True)

    @torch.no_grad()
    def _evaluate(self, points: Tensor) -> Tensor:
        if self.together:
            try:
                return torch.cat([self.function(some) for some in torch.split(points, self._most)])
            # a network of one batch size (traced, exported, conditions of one sample)
            except Exception:
                self.together = False
        return torch.cat([self.function(one[None]) for one in points])


def _changes(steps: list[Tensor], sizes: Tensor, multiples: tuple[float, ...]) -> Tensor:
    """Return what neighbouring steps h' < h resolve, (steps - 1, m): `|d_h - d_h'|`, and at least
    the rounding of F over h'.

    Two of them may agree by chance to more digits than they have: single components often, and
    vectors where the rounding of F is a common factor. So the rounding is read off the last `NOISY`
    pairs, where it rules: it grows as 1 / h. Infinite where no digit of F changed, but does
    elsewhere.
    """
    changes = torch.stack([_norms(a - b) for a, b in pairwise(steps)]).nan_to_num(
        torch.inf, torch.inf
    )
    nothing = (sizes[:-1] == 0) & (sizes[1:] == 0) & (sizes.nan_to_num() > 0).any(0)
    changes = changes.masked_fill(nothing, torch.inf)
    h = torch.tensor(multiples[1:], dtype=changes.dtype, device=changes.device).reshape(-1, 1)
    rounding = (changes * h)[-NOISY:].nan_to_num(0, 0).amax(0)
    return torch.maximum(changes, rounding / h)


def _norms(x: Tensor) -> Tensor:
    return x.double().flatten(1).norm(dim=1)
