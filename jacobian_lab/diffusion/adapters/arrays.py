"""A network that is a function of numpy or JAX arrays: `function(x, t) -> raw output`.

PyTorch does not see inside. Without derivatives, J v is by differences of the function, and there
is no J^T u; with `jvp` and `vjp` both are exact. A function of JAX has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.denoiser import Denoiser, Shape
from jacobian_lab.diffusion.prediction import Preconditioning, Prediction
from jacobian_lab.diffusion.schedule import Schedule
from jacobian_lab.errors import InputError

Function = Callable[..., Any]


def load_function(
    source: Function,
    *,
    schedule: Schedule,
    prediction: Prediction | Preconditioning,
    shape: Shape,
    library: Literal["numpy", "jax"] = "numpy",
    jvp: Function | None = None,
    vjp: Function | None = None,
) -> Denoiser:
    """Return the denoiser of a function of arrays.

    Parameters
    ----------
    source : callable
        `function(x, t)`, x (B, *shape) and t (B,), to an array of the shape of x.
    schedule, prediction, shape
        As in `Denoiser`.
    library : {"numpy", "jax"}
        What the arrays are. JAX differentiates by itself.
    jvp, vjp : callable, optional
        `jvp(x, t, v)` is `J v` and `vjp(x, t, u)` is `J^T u` for each sample, shape of x; both or
        neither.
    """
    _require.one_of("library", library, ("numpy", "jax"))
    if (jvp is None) != (vjp is None):
        raise InputError("pass both jvp and vjp, or neither: J v is checked against J^T u")
    if library == "jax" and jvp is None:
        jvp, vjp = _of_jax(source)
    network = Arrays(source, _to_jax if library == "jax" else _to_numpy, jvp, vjp)
    return Denoiser(network, schedule, prediction, shape).eval()


class Arrays(nn.Module):
    """A function of arrays as a network of tensors."""

    def __init__(
        self, function: Function, convert: Function, jvp: Function | None, vjp: Function | None
    ) -> None:
        super().__init__()
        self.function, self.convert, self.jvp, self.vjp = function, convert, jvp, vjp

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the function's output for x, (B, *shape), t (B,)."""
        if self.jvp is None:
            return self.call(self.function, x.detach(), t)
        return _Value.apply(x, t, self)

    def call(self, function: Function, x: Tensor, t: Tensor, *more: Tensor) -> Tensor:
        """Return a function of arrays at tensors, as a tensor like x."""
        given = [self.convert(tensor.detach()) for tensor in (x, t, *more)]
        return torch.from_numpy(np.array(function(*given))).to(x)


class _Value(torch.autograd.Function):
    """`F(x, t)`, whose derivative backwards is `_Transposed`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, arrays: Arrays) -> Tensor:
        ctx.save_for_backward(x, t)
        ctx.arrays = arrays
        return arrays.call(arrays.function, x, t)

    @staticmethod
    def backward(ctx: Any, *u: Tensor) -> tuple[Tensor, None, None]:
        x, t = ctx.saved_tensors
        return _Transposed.apply(u[0], x, t, ctx.arrays), None, None


class _Transposed(torch.autograd.Function):
    """`J^T u`, linear in u, whose derivative backwards is `J v`; none in x is offered."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, x: Tensor, t: Tensor, arrays: Arrays) -> Tensor:
        ctx.save_for_backward(x, t)
        ctx.arrays = arrays
        return arrays.call(arrays.vjp, x, t, u)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor, None, None, None]:
        x, t = ctx.saved_tensors
        return ctx.arrays.call(ctx.arrays.jvp, x, t, v[0]), None, None, None


def _to_numpy(tensor: Tensor) -> Any:
    known = tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # numpy does not know it
    return known.cpu().numpy()


def _to_jax(tensor: Tensor) -> Any:
    from jax import numpy as jnp

    return jnp.asarray(_to_numpy(tensor))


def _of_jax(function: Function) -> tuple[Function, Function]:
    """Return J v and J^T u of a function of JAX."""
    jax = _require.library("jax", "", "functions of JAX")

    def jvp(x: Any, t: Any, v: Any) -> Any:
        return jax.jvp(lambda z: function(z, t), (x,), (v,))[1]

    def vjp(x: Any, t: Any, u: Any) -> Any:
        value, pull = jax.vjp(lambda z: function(z, t), x)
        return pull(u.astype(value.dtype))[0]  # the function may compute in another precision

    return jvp, vjp
