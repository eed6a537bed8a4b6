"""Whether a file holds an Arnoldi factorisation, and whether it is one of this operator.

A is not stored. Two products tell it apart from others: one with a random vector, which is stored
as the probe, and one with a vector of the space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jacobian_lab._files import load_arrays
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.counting import Counted

Array = NDArray[np.float64]


def read(path: str | Path, size: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, if they are a factorisation of an operator of this size."""
    data = load_arrays(Path(path), "Expected a file that Arnoldi.save wrote: start anew")
    try:
        (n, columns), (rows, m) = data["basis"].shape, data["hessenberg"].shape
        data.setdefault("block", np.array(1))  # of the files of 0.2
        fits = (
            m <= n
            and rows == columns == min(m + int(data["block"]), n)
            and data["probe"].shape == (n,)
            and all(data[name].dtype == np.float64 for name in ("basis", "hessenberg", "probe"))
            and [
                (data[name].ndim, data[name].dtype.kind)
                for name in ("seed", "products", "block", "breakdowns")
            ]
            == [(0, "i"), (0, "i"), (0, "i"), (1, "i")]
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"{path} is not the file of an Arnoldi factorisation: expected basis, hessenberg,"
            " probe, seed, block, products and breakdowns, as Arnoldi.save writes them"
        )
    if n != size:
        raise InputError(f"{path} belongs to an operator of size {n}: got one of size {size}")
    return data


def fingerprint(operator: Counted) -> Array:
    """Return A's product with a random vector, always the same: of the same A the same to the
    last bits, even where products are differences, whose errors are larger but the same, too.
    """
    n = operator.shape[0]
    z = np.random.default_rng(n).standard_normal((n, 1))
    product = operator.operator.matmat(z / np.linalg.norm(z))
    operator.products += 1
    return np.asarray(product, dtype=np.float64)[:, 0]


def check_same(
    path: str | Path, operator: Counted, Q: Array, H: Array, data: dict[str, NDArray[Any]]
) -> None:
    """Raise unless A's product is that of the file, and A agrees with the factorisation on a
    vector of its space.

    Parameters
    ----------
    path : str or Path
        Where the file lies, for the message.
    operator : Counted
        A; two products are spent, one for an empty factorisation.
    Q, H : array, shapes (n, min(m + 1, n)) and (>= min(m + 1, n), m)
        The factorisation, in the operator's units.
    data : dict
        What `read` returned.
    """
    n, m = len(Q), int(H.shape[1])
    again, before = fingerprint(operator), data["probe"]
    unit = float(np.abs([again, before]).max()) or 1.0  # squares may overflow
    differences = [
        float(np.linalg.norm(again / unit - before / unit) / (np.linalg.norm(before / unit) or 1))
    ]
    bounds = [10 * float(np.finfo(operator.operator.dtype).eps) * n**0.5]
    if m:
        weights = np.random.default_rng([int(data["seed"]), m]).standard_normal(m)
        weights /= np.linalg.norm(weights)
        H = H[: Q.shape[1]]
        change = operator.matvec(Q[:, :m] @ weights) - Q @ (H @ weights)
        differences.append(float(np.linalg.norm(change) / (np.linalg.norm(H) or 1)))
        bounds.append(10 * operator.rounding)
    for difference, bound in zip(differences, bounds, strict=True):
        if not difference <= bound:
            raise InputError(
                f"{path} belongs to another operator: a product differs from that of the file"
                f" by {difference:.1e} of its size; load it with the operator that it was made"
                " of, on the same device, or start anew"
            )
