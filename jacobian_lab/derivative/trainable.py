r"""Products that can be trained through: `J v` and `J^T u` with the graph of the weights.

    linear = linearise(lambda x: denoiser(x, t), x_t)
    loss = linear.value.square().mean() + (linear.jvp(v) - linear.vjp(v)).square().mean()
    loss.backward()

`J^T u` is a backward pass whose graph is kept. It is linear in u, so that its own transpose is
`J v` (double backward): exact, attention included. For penalties of J, mean flows and consistency
losses; a product without the weights' graph is cheaper: `BatchJacobian`. What a step of training
costs tells `jacobian-lab benchmark training`.

References
----------
Pearlmutter (1994), *Fast exact multiplication by the Hessian*, for products inside a loss; the
transposition is that of J. Townsend's (2017) note on forward mode by two reverse passes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.derivative.agreement import Comparison
from jacobian_lab.derivative.guards import is_repeated
from jacobian_lab.derivative.precision import observed
from jacobian_lab.derivative.probes import beside, probe
from jacobian_lab.derivative.settings import MATH_ATTENTION, as_called
from jacobian_lab.derivative.verification import ADJOINT, COARSE
from jacobian_lab.errors import InputError

TINY = 1e-300
"""Takes the place of a divisor 0."""


class Linearised:
    """A function at a batch x, its value and products, each with the graph of the weights; made by
    `linearise`.

    Attributes
    ----------
    value : Tensor, shape (B, ...)
        The function at x.
    error : float
        Distance of the first product to central differences, relative to it; NaN where it was not
        checked.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor, check: bool) -> None:
        self._function, self.error = as_called(function), float("nan")
        self._unchecked = {"jvp", "vjp"} if check else set()
        self._checked: tuple[Tensor, Tensor, float] | None = None
        with torch.enable_grad(), MATH_ATTENTION:
            self._x = x if x.requires_grad else x.detach().clone().requires_grad_()
            self.value = function(self._x)
        if not self.value.requires_grad:
            raise InputError(
                "the function's value has no graph: it computes under no_grad, detaches, or does"
                " not depend on x"
            )
        self._transposed: tuple[Tensor, Tensor] | None = None

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v`, of the shape of the value, for v of the shape of x; the first one is
        checked, by differences or with the first `J^T u`.

        Raises
        ------
        InputError
            If it disagrees with differences of the function.
        """
        _require.tensor("v", v, self._x.shape)
        with torch.enable_grad(), MATH_ATTENTION:
            if self._transposed is None:
                u = torch.zeros_like(self.value, requires_grad=True)
                self._transposed = u, self._gradient(self.value, self._x, u)
            u, transposed = self._transposed
            found = self._gradient(transposed, u, v)
        if self._is_first("jvp", v):
            # and along a probe: v alone may be blind to a number that is read out, such as a mean
            x = self._x.detach()
            other = probe(x)[0] * (v.detach().norm() / x.numel() ** 0.5)
            with torch.enable_grad(), MATH_ATTENTION:
                more = self._gradient(transposed, u, other)
            along, product = v.detach() + other, (found + more).detach()
            if not self._is_adjoint(along, product):
                self._checked = along, product, self._check(along, product)
        return found

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J^T u`, of the shape of x, for u of the shape of the value; the first one is
        checked, by differences or with the first `J v`.

        Raises
        ------
        InputError
            If it disagrees with differences of the function.
        """
        _require.tensor("u", u, self.value.shape)
        with torch.enable_grad(), MATH_ATTENTION:
            found = self._gradient(self.value, self._x, u)
        if self._is_first("vjp", u) and not self._is_adjoint(u.detach(), found.detach()):
            # along J^T u, where an error shows most, and what that is blind to
            v = beside(found.detach()[None], self._x.detach())[0]
            along = (found.detach().double() * v.double()).sum()
            along = along / u.detach().double().norm().clamp(min=TINY)
            eps = self._check(v, along.reshape(1, 1), u.detach())
            self._checked = u.detach(), found.detach(), eps
        return found

    def _is_first(self, kind: str, vector: Tensor) -> bool:
        """Return whether this is the first product of its kind that tells something."""
        if kind not in self._unchecked or not bool(vector.any()):
            return False
        self._unchecked.remove(kind)
        return True

    def _is_adjoint(self, vector: Tensor, product: Tensor) -> bool:
        """Return whether a product was held against one of the other kind that was checked; raise
        if they are not adjoint.
        """
        if self._checked is None:
            return False
        w, g, eps = self._checked
        a, b, w, g = (tensor.double().flatten() for tensor in (vector, product, w, g))
        size = float(a.norm() * g.norm() + b.norm() * w.norm())
        if not abs(float(a @ g - b @ w)) <= min(ADJOINT * eps, COARSE) * size:
            raise InputError(
                "J v and J^T u by PyTorch are not adjoint: a backward pass of the function is not"
                " linear, or has no derivative of its own (a custom autograd function, a hook)"
            )
        return True

    def _gradient(self, output: Tensor, source: Tensor, vectors: Tensor) -> Tensor:
        found = torch.autograd.grad(
            output, source, vectors, create_graph=True, materialize_grads=True
        )
        return found[0]

    def _check(self, v: Tensor, product: Tensor, onto: Tensor | None = None) -> float:
        """Compare `J v`, or its component along `onto`, with central differences of the function at
        the whole batch: its samples may see each other, as in batch normalisation. Return the eps
        of its coarsest precision.
        """
        shape, whole = self._x.shape, self._x.detach().reshape(1, -1)

        def function(x: Tensor) -> Tensor:
            return self._function(x.reshape(shape)).reshape(1, -1)

        with torch.no_grad():
            value, eps, *_ = observed(function, whole)
            size = float(whole.double().square().mean().sqrt()) or 1.0
            apart = None if onto is None else onto.reshape(1, -1)
            compared = Comparison(function, whole, v.reshape(1, -1), eps, size, apart, most=1)
            if not is_repeated(compared.value, value, eps):
                raise InputError(
                    "the function gives another value at each call (dropout, noise), and its"
                    " derivative cannot be checked: fix its noise, or pass check=False"
                )
            verdict = compared.verdict(product.reshape(1, -1))
        self.error = verdict.error
        if not verdict.agrees:
            raise InputError(
                f"PyTorch's derivative disagrees with differences of the function by"
                f" {verdict.error:.1e}: its graph misses what is computed (a detach, a no_grad, a"
                " number read out)"
            )
        return eps


def linearise(function: Callable[[Tensor], Tensor], x: Tensor, *, check: bool = True) -> Linearised:
    """Return a function at a batch x, with products `J v` and `J^T u` that can be trained through.

    Parameters
    ----------
    function : callable
        From ``(B, *shape)`` to ``(B, *anything)``, such as `lambda x: denoiser(x, t)`, in
        whatever mode it is trained. J is that of the whole batch: v has the shape of x.
    x : Tensor, shape (B, *shape)
        If it requires gradients, they flow into it as well.
    check : bool
        Compare the first product with central differences, and the first of the other kind with
        it: four more evaluations, by which running averages of a batch normalisation move. Leave
        it on for the first step of a training, at least.

    Returns
    -------
    Linearised
        `.value`, `.jvp(v)`, `.vjp(u)`: tensors with the graph of the weights.

    Raises
    ------
    InputError
        If the value has no graph; or with the first product if it disagrees with differences, or
        the function gives another value at each call.
    """
    _require.function("function", function, "(B, *shape) -> (B, *anything)")
    _require.finite("x", _require.tensor("x", x))
    if x.ndim < 2 or not x.is_floating_point():
        raise InputError(
            f"x must be a batch of floating-point samples, (B, *shape): got {_require.shown(x)}"
        )
    return Linearised(function, x, _require.flag("check", check))
