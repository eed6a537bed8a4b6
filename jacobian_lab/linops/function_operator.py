r"""The Jacobian of any function of a sample, as an operator; and functions that are an inner layer
of a network.

    A = operator_of(function, x)                  # shape (m, n): m entries of the value, n of x
    A @ v, A.T @ u, A.dense(), singular_values(A)
    H = operator_of(inner_layer(denoiser, t, "middle_b"), x_t)

The derivative is chosen and checked as that of a denoiser's network is: `path`, `product_error`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.derivative.any_function import AnyFunction
from jacobian_lab.derivative.ladder import Ladder
from jacobian_lab.derivative.probes import probe
from jacobian_lab.derivative.settings import autocast_here, differentiable, made_under
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.operators import Apply, Array, Operator, at_unit_scale


class FunctionOperator(Operator):
    """`d function / d x` at one sample, as a real m x n operator; made by `operator_of`.

    Attributes
    ----------
    value : Tensor, shape (1, ...)
        The function at x, of m entries.
    path, reason : str
        How `A v` is computed, and why; see `JacobianOperator`.
    product_error : float
        How far products may be off, as far as differences and the adjoint identity tell.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], x: Tensor, memory: int | None = None
    ) -> None:
        x = x.detach().clone()  # which the caller may write into
        whole = AnyFunction(function, x)
        with differentiable():
            self.ladder = Ladder(whole, x, 0, memory=memory)
            self.ladder.choose(probe(self.ladder.x))
        value = self.ladder.value
        self.value, self.reason = value.reshape(1, *whole.output_shape), self.ladder.reason
        exact = x.dtype == torch.float64
        eps = self.ladder.eps if self.ladder.eps > torch.finfo(x.dtype).eps else 0.0
        rough = self.ladder.path.endswith("difference")
        super().__init__(
            (value.numel(), x.numel()),
            np.float64 if exact else np.float32,
            _on_columns(self.ladder.jvp, self.ladder, self.ladder.x),
            _on_columns(self.ladder.vjp, self.ladder, value),
            path=self.ladder.path,
            rounding=self.ladder.error if rough else eps,
            made_by=(made_under, (autocast_here(), FunctionOperator, (function, x, memory))),
        )

    @property
    def product_error(self) -> float:
        """How far products may be off; the first A^T u is compared with A v."""
        return self.ladder.error

    def dense(self) -> Array:
        """Return the Jacobian as a numpy array, (m, n), by its rows or its columns, of which there
        are fewer.
        """
        m, n = self.shape
        by_columns = n <= m or self.path.endswith("difference")
        found = np.empty(self.shape, self.dtype)
        with differentiable():
            chunk = self.ladder.chunk()
        for start in range(0, n if by_columns else m, chunk):
            units = np.eye(n if by_columns else m, chunk, -start, dtype=self.dtype)
            units = units[:, : (n if by_columns else m) - start]
            if by_columns:
                found[:, start : start + chunk] = self.matmat(units)
            else:
                found[start : start + chunk] = self.rmatmat(units).T
        self.ladder.forget()
        return found


def operator_of(
    function: Callable[[Tensor], Tensor], x: Tensor, *, memory: int | None = None
) -> FunctionOperator:
    """Return the Jacobian of any function at a sample x.

    Parameters
    ----------
    function : callable
        From ``(B, *shape)`` to ``(B, *anything)``, samples that do not see each other; in
        evaluation mode. Such as `lambda x: denoiser(x, t)`, `lambda x: decode(denoiser(x, t))`,
        or what `inner_layer` returns.
    x : Tensor, shape (1, *shape)
        Sets device and precision.
    memory : int, optional
        Bytes that the vectors of one pass may take.

    Returns
    -------
    FunctionOperator
        Of shape (m, n), in the order of `tensor.reshape(-1)`.

    Raises
    ------
    InputError
        If x or the value is not finite, the value has another batch size than x, or the function is
        in training mode or gives another value at each call.

    Warns
    -----
    DerivativeWarning
        If only finite differences pass the check, or the derivative is zero where the value is not
        constant.
    """
    _require.function("function", function, "(B, *shape) -> (B, *anything)")
    _require.finite("x", _require.tensor("x", x))
    if x.ndim < 2 or len(x) != 1 or not x.is_floating_point():
        raise InputError(
            f"x must be one sample with a batch dimension, (1, *shape), of floating-point numbers:"
            f" got {_require.shown(x)}"
        )
    if memory is not None:
        _require.real("the memory in bytes", memory, "(0, inf)")
    return FunctionOperator(function, x, memory)


def inner_layer(denoiser: Denoiser, t: Time, layer: str) -> Callable[[Tensor], Tensor]:
    """Return the function from x_t to what an inner layer of the network gives there, such as the
    bottleneck of a U-Net.

    Parameters
    ----------
    denoiser : Denoiser
        Its network is a module.
    t : int or float
    layer : str
        A name of `denoiser.network.named_modules()`; called once in a forward pass.

    References
    ----------
    Park et al. (2023), *Understanding the latent space of diffusion models through the lens of
    Riemannian geometry*, whose "h-space" is the U-Net's bottleneck.
    """
    _require.instance("denoiser", denoiser, Denoiser)
    if not isinstance(denoiser.network, nn.Module):
        raise InputError("an inner layer is that of a network which is a torch.nn.Module")
    modules = dict(denoiser.network.named_modules())
    if not layer or layer not in modules:
        names = ", ".join(name for name in modules if name and "." not in name)
        raise InputError(f"the network has no layer {layer!r}: it has {names}, and layers of these")

    def value(x: Tensor) -> Tensor:
        found: list[Tensor] = []

        def keep(_module: nn.Module, _input: Any, given: Any) -> None:
            # an activation in place may follow
            found.append(given.clone() if isinstance(given, Tensor) else given)

        handle = modules[layer].register_forward_hook(keep)
        try:
            denoiser.output(x, t)
        finally:
            handle.remove()
        if len(found) != 1:
            raise InputError(
                f"the layer {layer!r} was called {len(found)} times in a forward pass: expected"
                " once"
            )
        return found[0]

    return value


def _on_columns(product: Callable[[Tensor], Tensor], ladder: Ladder, like: Tensor) -> Apply:
    """Return a ladder's product on numpy columns; `like` has the shape of what it takes."""
    own, precision = (
        (np.float64, torch.float64) if like.dtype == torch.float64 else (np.float32, torch.float32)
    )

    def apply(V: Array) -> Array:
        rows = torch.from_numpy(np.array(V.T, dtype=own, order="C")).to(like.device, like.dtype)
        ladder.check_weights()
        with differentiable():
            found = product(rows.reshape(-1, *like.shape).contiguous())
        return np.asarray(found.reshape(len(rows), -1).cpu().to(precision).numpy().T)

    return at_unit_scale(apply) if like.dtype == torch.float16 else apply
