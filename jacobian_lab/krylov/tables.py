"""How results of iterations are printed: a line for each value, to the digits that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


SHOWN = 12
"""Lines of a result that are printed."""


def listing(
    name: str, values: NDArray[Any], errors: Array, residuals: Array, message: str, products: int
) -> str:
    """Return a result as a table, a line for each of the first values, and the message below it.

    Parameters
    ----------
    name : str
        What a value is, the head of the first column.
    values, errors, residuals : array, shape (k,)
    message : str
        Why it ended.
    products : int
        What it cost.
    """
    shown = [_rounded(v, e) for v, e in zip(values[:SHOWN], errors, strict=False)]
    width = max(map(len, [name, *shown]))
    lines = [f"{name:>{width}}  {'error':>7}  {'residual':>8}"]
    lines += [
        f"{v:>{width}}  {e:7.1e}  {r:8.1e}"
        for v, e, r in zip(shown, errors, residuals, strict=False)
    ]
    lines += [f"{f'... {len(values) - SHOWN} more':>{width}}"] if len(values) > SHOWN else []
    return "\n".join([*lines, f"{message} ({products} products)"])


def _rounded(value: complex, error: float) -> str:
    """Return a value to the digits that its error leaves, and one more."""
    limits = np.finfo(float)  # their ratio may overflow, and they may be no numbers
    pair = np.nan_to_num([abs(value), error], nan=limits.max)
    size, doubt = np.log10(np.maximum(pair, limits.tiny))
    digits = int(np.clip(np.ceil(size - doubt) + 1, 2, 12))
    return f"{value:.{digits}g}" if np.imag(value) else f"{np.real(value):.{digits}g}"


def goal_reached(tolerance: float, noise: float, rtol: float) -> str:
    """Say what residuals were held against.

    Parameters
    ----------
    tolerance, noise : float
        In the units of the operator.
    rtol : float
        What was asked for.
    """
    return f"the operator's noise floor {noise:.1e}" if tolerance <= noise else f"rtol {rtol:.1e}"
