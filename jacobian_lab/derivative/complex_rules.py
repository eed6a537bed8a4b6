r"""The Jacobian of operations on complex numbers: real and imaginary parts, and the Fourier
transforms F.

A complex tangent stands for its real and imaginary parts, with the inner product `Re <u, v>`: the
transpose of a product with a matrix is that with its adjoint, and the transpose of F is the
unscaled inverse.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jacobian_lab.derivative.linear_map import Call, TangentMap, rule

aten: Any = torch.ops.aten


@rule("_conj", "_conj_physical")
def _conjugate(_: Call) -> TangentMap:
    return TangentMap(lambda t: t.conj(), lambda u: u.conj())


@rule("view_as_real")
def _as_real(_: Call) -> TangentMap:
    return TangentMap(_in_reals, _in_complex)


@rule("view_as_complex")
def _as_complex(_: Call) -> TangentMap:
    return TangentMap(_in_complex, _in_reals)


def _in_reals(t: Tensor) -> Tensor:
    return torch.view_as_real(t.resolve_conj())


def _in_complex(t: Tensor) -> Tensor:
    return torch.view_as_complex(t.contiguous())


@rule("_fft_c2c")
def _fourier(call: Call) -> TangentMap:
    _, dims, scaling, forward = call.args
    over = [d % call.out.ndim + 1 for d in dims]
    return TangentMap(
        lambda t: aten._fft_c2c(t, over, scaling, forward),
        lambda u: aten._fft_c2c(u, over, scaling, not forward),
    )


@rule("_fft_r2c")
def _fourier_of_reals(call: Call) -> TangentMap:
    x, dims, scaling, onesided = call.args
    over, last = [d % x.ndim + 1 for d in dims], dims[-1] % x.ndim + 1
    missing = x.shape[last - 1] - call.out.shape[last - 1]

    def pull(u: Tensor) -> Tensor:
        whole = aten.constant_pad_nd(u.movedim(last, -1), [0, missing]).movedim(-1, last)
        return aten._fft_c2c(whole, over, scaling, False).real

    return TangentMap(lambda t: aten._fft_r2c(t, over, scaling, onesided), pull)


@rule("_fft_c2r")
def _fourier_to_reals(call: Call) -> TangentMap:
    X, dims, scaling, n = call.args
    over, last = [d % X.ndim + 1 for d in dims], dims[-1] % X.ndim + 1
    # the other half is implied
    weights = torch.full((X.shape[last - 1],), 2, dtype=X.dtype.to_real(), device=X.device)
    weights[0] = 1
    if n % 2 == 0:
        weights[-1] = 1
    weights = weights.reshape(-1, *(1,) * (X.ndim - last))

    def pull(u: Tensor) -> Tensor:
        return aten._fft_r2c(u, over, scaling, True) * weights

    return TangentMap(lambda t: aten._fft_c2r(t, over, scaling, n), pull)
