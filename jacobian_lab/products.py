r"""Products with the Jacobian `J = dD/dx_t` at a fixed point: `J v` and `J^T u` for batches of vectors.

    jvp("exact")      the graph of u -> J^T u, which is linear in u, differentiated by u: exact to the network's rounding
    jvp("forward")    (D(x + h v) - D(x)) / h: one forward pass; error O(h) + O(eps / h)
    jvp("central")    (D(x + h v) - D(x - h v)) / (2 h): two passes; error O(h^2) + O(eps / h)
    vjp               reverse mode on a graph that is kept: one backward pass

Each call is one batched pass (two for "central"). Everything runs on the math kernel of attention, since the fused ones
have no second derivative, and the function whose J and J^T are taken should be one and the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.schedule import Time

Graph: TypeAlias = tuple[Tensor, Tensor]  # the leaf, and what was computed from it
Method: TypeAlias = Literal["exact", "forward", "central"]


@contextmanager
def differentiable() -> Iterator[None]:
    """Make derivatives possible inside (gradients on, attention by the math kernel); restore the caller's settings after."""
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


class Products:
    """Products with `J = dD/dx_t` at one point (x_t, t).

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode.
    x_t : Tensor, shape (C, H, W) or (1, C, H, W)
    t : int or float
        Time of the denoiser's schedule.
    method : {"exact", "forward", "central"}
        How `jvp` is computed; `vjp` is always exact.
    step : float, optional
        Step h of the finite differences, relative to the size of x_t: each v is scaled so that `h |v| = step |x_t|`.
        By default `2 eps**(1/2)` ("forward") or `eps**(1/3)` ("central") of the dtype: where `jacobian-lab accuracy` finds
        the optimum on the MNIST denoiser.

    Attributes
    ----------
    x : Tensor, shape (1, C, H, W)
        The point, detached.
    d : Tensor, shape (1, C, H, W)
        The primal value `D(x_t, t)`.

    Raises
    ------
    InputError
        If x_t is not one sample or not finite, the network is in training mode, or its output is not finite.
    """

    def __init__(self, denoiser: Denoiser, x_t: Tensor, t: Time, method: Method = "exact", step: float | None = None) -> None:
        if method not in get_args(Method):
            raise InputError(f"unknown products {method!r}: expected one of {', '.join(get_args(Method))}")
        if step is not None and not step > 0:
            raise InputError(f"the finite-difference step must be positive: got {step}")
        if not isinstance(x_t, Tensor) or not x_t.is_floating_point():
            raise InputError(f"x_t must be a floating-point tensor: got {getattr(x_t, 'dtype', type(x_t).__name__)}")
        if x_t.ndim == 4 and x_t.shape[0] != 1:
            raise InputError(f"a Jacobian is taken at one sample: got a batch of {x_t.shape[0]}; take x_t[i]")
        _check_evaluation_mode(denoiser)
        _check_finite(x_t, "x_t")
        with differentiable(), torch.no_grad():
            self.x = x_t.detach().clone()
            self.denoiser, self.t, self.method = denoiser, t, method
            self.d = denoiser(self.x, t).reshape(1, *denoiser.shape)
            self.x = self.x.reshape(1, *denoiser.shape)
            _check_finite(self.d, "the network's output D(x_t, t)", f" at t = {t}, though x_t is finite: check the weights, "
                          "the precision, and that t is on the network's own scale")
        eps = torch.finfo(self.x.dtype).eps
        self.step = step if step is not None else 2 * eps ** (1 / 2) if method == "forward" else eps ** (1 / 3)
        self._primal: Graph | None = None
        self._transposed: Graph | None = None

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v` for each row of `v`, shape (K, C, H, W). The graph of the last K is kept for the next call."""
        with differentiable():
            if self.method != "exact":
                with torch.no_grad():
                    return self._difference(v)
            if self._transposed is None or len(self._transposed[0]) != len(v):
                self._transposed = None
                x, d = self._primal_graph(len(v))
                u = torch.zeros_like(d).requires_grad_()
                self._transposed = u, _gradient(d, x, u, create_graph=True)
            u, transposed = self._transposed
            return _gradient(transposed, u, v)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J^T u` for each row of `u`, shape (K, C, H, W). The graph of the last K is kept for the next call."""
        with differentiable():
            x, d = self._primal_graph(len(u))
            return _gradient(d, x, u)

    def forget(self) -> None:
        """Free the graphs that `jvp` and `vjp` keep."""
        self._primal = self._transposed = None

    def bytes_per_vector(self) -> int:
        """Return the memory that the graph of one vector holds: what bounds the batch of `vjp`."""
        held: dict[int, int] = {}
        weights = {p.untyped_storage().data_ptr() for p in self.denoiser.parameters()}

        def note(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with differentiable(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self.denoiser(self.x.clone().requires_grad_(), self.t)
        return sum(held.values())

    def _primal_graph(self, count: int) -> Graph:
        if self._primal is None or len(self._primal[0]) != count:
            self.forget()  # before the new one is made: never two in memory
            x = self._copies(count).requires_grad_()
            self._primal = x, self.denoiser(x, self.t)
        return self._primal

    def _difference(self, v: Tensor) -> Tensor:
        size = v.flatten(1).norm(dim=1)
        h = (self.step * self.x.norm() / torch.where(size > 0, size, 1)).reshape(-1, 1, 1, 1)
        x = self._copies(len(v))
        ahead = self.denoiser(x + h * v, self.t)
        if self.method == "forward":
            return (ahead - self.d) / h
        return (ahead - self.denoiser(x - h * v, self.t)) / (2 * h)

    def _copies(self, count: int) -> Tensor:
        return self.x.repeat(count, 1, 1, 1)


def _gradient(output: Tensor, x: Tensor, vectors: Tensor, create_graph: bool = False) -> Tensor:
    """Return `(d output / d x)^T vectors`, keeping the graph."""
    return torch.autograd.grad(output, x, vectors, retain_graph=True, create_graph=create_graph)[0]


def _check_evaluation_mode(denoiser: Denoiser) -> None:
    training = [name for name, module in denoiser.named_modules() if module.training and module is not denoiser]
    if training:
        raise InputError(f"the network is in training mode ({training[0]}{' and more' if training[1:] else ''}): dropout and "
                         "batch statistics would make J another operator at each call. Call denoiser.eval() first")


def _check_finite(x: Tensor, name: str, remedy: str = "") -> None:
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise InputError(f"{name} has {bad} values of {x.numel()} that are not finite (NaN or infinite){remedy}")


__all__ = ["Method", "Products", "differentiable"]
