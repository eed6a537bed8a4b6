"""Products with J by PyTorch's own derivatives, for functions that cannot be recorded, and by
finite differences.

    DoubleBackward   reverse mode: u -> J^T u is linear in u, and its graph, transposed, is v -> J v
    ForwardMode      J v by dual numbers: the function runs again for each product
    Differences      J v by forward or central differences: one or two forward passes

All take one point x of shape (1, *shape) and K vectors (K, *shape); or K points, and a vector for
each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd import forward_ad

from jacobian_lab.derivative.settings import MATH_ATTENTION

GUESS = 1000
"""Memory of the graph of one vector, in sizes of x, where it cannot be measured: a U-Net keeps
hundreds of activations of the size of its input.
"""
Function: TypeAlias = Callable[[Tensor], Tensor]
Graph: TypeAlias = tuple[Tensor, Tensor]  # the leaf, and what was computed from it


class DoubleBackward:
    """Reverse mode on graphs that are kept for the last K.

    Parameters
    ----------
    function : callable
        From (K, *shape) to the same shape; samples do not see each other.
    x : Tensor, shape (1, *shape) or (K, *shape)
    """

    def __init__(self, function: Function, x: Tensor) -> None:
        self.function, self.x = function, x
        self._seen: tuple[Tensor, Tensor] | None = None
        self._primal: Graph | None = None
        self._transposed: Graph | None = None

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v` for each row of `v`."""
        with torch.enable_grad(), MATH_ATTENTION:
            if self._transposed is None or len(self._transposed[0]) != len(v):
                self.forget()  # a graph of kernels that have no second derivative
                x, d = self._graph(len(v))
                u = torch.zeros_like(d).requires_grad_()
                self._transposed = u, _gradient(d, x, u, create_graph=True)
            u, transposed = self._transposed
            return _gradient(transposed, u, v)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J^T u` for each row of `u`."""
        try:
            with torch.enable_grad():
                x, d = self._graph(len(u))
                return _gradient(d, x, u)
        except RuntimeError:  # the network differentiates its attention itself
            self.forget()
            with torch.enable_grad(), MATH_ATTENTION:
                x, d = self._graph(len(u))
                return _gradient(d, x, u)

    def primal(self, count: int) -> Tensor:
        """Return the function's value for `count` vectors, and keep its graph."""
        with torch.enable_grad():
            return self._graph(count)[1]

    def told(self) -> tuple[Tensor, Tensor] | None:
        """Return, once, what the last run told of the function's value at x, (K, *shape), and how
        far that may be off, (K,); None where it did not run, or tells nothing.
        """
        seen, self._seen = self._seen, None
        return seen

    def forget(self) -> None:
        """Free the graphs."""
        self._primal = self._transposed = None

    def bytes_per_vector(self) -> int:
        """Return the memory that the graph of one vector holds."""
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter) and tensor.layout is torch.strided:
                held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        try:
            with (
                torch.enable_grad(),
                torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            ):
                self.function(self.x.clone().requires_grad_())
        except RuntimeError:  # torch.func inside the network allows no hooks
            return GUESS * self.x[0].nbytes
        # the second graph keeps what the first computes
        return max(self.x[0].nbytes, 3 * sum(held.values()))

    def _graph(self, count: int) -> Graph:
        if self._primal is None or len(self._primal[0]) != count:
            self.forget()  # before the new one is made: never two in memory
            x = self.x.expand(count, *self.x.shape[1:]).clone().requires_grad_()
            self._primal = x, self.function(x)
            self._see(self._primal[1])
        return self._primal

    def _see(self, value: Tensor) -> None:
        self._seen = value.detach(), value.new_zeros(len(value))


class ForwardMode(DoubleBackward):
    """`J v` in forward mode, `J^T u` in reverse mode."""

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v` for each row of `v`: one run of the function with tangents."""
        with (
            warnings.catch_warnings(),
            torch.no_grad(),
            MATH_ATTENTION,
            forward_ad.dual_level(),
        ):
            warnings.filterwarnings("ignore", category=FutureWarning)  # PyTorch's own, of torch.jit
            dual = forward_ad.make_dual(self.x.expand(len(v), *self.x.shape[1:]).contiguous(), v)  # type: ignore[no-untyped-call]
            value, tangent = forward_ad.unpack_dual(self.function(dual))  # type: ignore[no-untyped-call]
            self._see(value)
            return torch.zeros_like(value) if tangent is None else tangent


class Differences(DoubleBackward):
    """`J v` by finite differences; `J^T u` in reverse mode.

    Parameters
    ----------
    function, x
        As in `DoubleBackward`.
    kind : {"forward", "central"}
    step : float, optional
        Step h relative to the size of x: each v is scaled so that `h |v| = step |x|`, or `step` at
        x = 0. By default `2 eps**(1/2)` ("forward") or `eps**(1/3)` ("central") of the dtype: where
        `jacobian-lab accuracy` finds the optimum on the MNIST denoiser.
    value : Tensor, optional
        `function(x)`, if it is known: a forward difference then costs one pass.
    eps : float, optional
        Of the coarsest precision in which the function computes, if it is not that of x.
    """

    def __init__(
        self,
        function: Function,
        x: Tensor,
        kind: Literal["forward", "central"],
        step: float | None = None,
        value: Tensor | None = None,
        eps: float | None = None,
    ) -> None:
        super().__init__(function, x)
        self._value = value
        eps = eps or torch.finfo(x.dtype).eps
        self.kind, self.step = (
            kind,
            (
                step
                if step is not None
                else 2 * eps ** (1 / 2)
                if kind == "forward"
                else eps ** (1 / 3)
            ),
        )

    @torch.no_grad()
    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v` for each row of `v`."""
        wide = torch.promote_types(self.x.dtype, torch.float32)  # h overflows in half
        length, size = (
            torch.where(norm > 0, norm, 1)
            for norm in (_length(a.to(wide).flatten(1)) for a in (self.x, v))
        )
        h = (self.step * length / size).reshape(-1, *(1,) * (v.ndim - 1))
        move = (h * v).to(self.x)
        ahead = self.function(self.x + move)
        h = h.reshape(-1, *(1,) * (ahead.ndim - 1))  # of a function to another rank, as a decoder
        if self.kind == "forward":
            if self._value is None:
                self._value = self.function(self.x)
            return ((ahead - self._value) / h).to(v)
        behind = self.function(self.x - move)
        self._seen = (ahead + behind) / 2, (ahead - behind).flatten(1).norm(dim=1) / 2
        return ((ahead - behind) / (2 * h)).to(v)


def _length(rows: Tensor) -> Tensor:
    """Return the length of each row, whose squares may overflow or underflow."""
    largest = rows.abs().amax(1)
    largest = torch.where(largest > 0, largest, 1)
    return (rows / largest[:, None]).norm(dim=1) * largest


def _gradient(output: Tensor, x: Tensor, vectors: Tensor, create_graph: bool = False) -> Tensor:
    """Return `(d output / d x)^T vectors`, keeping the graph."""
    return torch.autograd.grad(output, x, vectors, retain_graph=True, create_graph=create_graph)[0]
