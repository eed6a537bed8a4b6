"""What the benchmark of eigensolvers found: its variables and its table."""

from __future__ import annotations

import numpy as np

from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays

SUBSPACE = "subspace iteration, 60 products"
ARPACK, ARPACK_PLAIN = "ARPACK on this operator", "ARPACK on torch.func.jvp, vjp"
PEERS = (ARPACK, ARPACK_PLAIN, SUBSPACE)
VARIABLES = {
    "operator": Variable("operator", "J, its symmetric or its skew part"),
    "method": Variable("method", "solver"),
    "products": Variable("operator method point", "products that it took"),
    "passes": Variable("operator method point", "passes in which it took them"),
    "found": Variable("operator method point", "products when the pairs had converged"),
    "seconds": Variable("operator method point", "time", "s"),
    "errors": Variable(
        "operator method point", "largest error, relative to the largest eigenvalue"
    ),
    "residuals": Variable("operator method point", "largest residual, relative alike"),
    "noise": Variable("operator method point", "noise floor of the products, as stated"),
    "notes": Variable("operator method point", "whether what is stated holds"),
}


def ours(block: int) -> str:
    """Return the name of our method with blocks of so many vectors."""
    return f"eigenpairs, certified, {block} a pass"


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each operator and method; products are means, seconds medians, errors and
    residuals the largest of all, relative to the largest eigenvalue.
    """
    rows: list[Row] = []
    methods = arrays["method"].tolist()
    for p, part in enumerate(arrays["operator"].tolist()):
        for m, method in enumerate(methods):
            of = {key: arrays[key][p, m] for key in ("products", "passes", "found", "seconds")}
            plain = arrays["seconds"][p, methods.index(ARPACK_PLAIN)]
            rows.append(
                {
                    "operator": part,
                    "method": method,
                    "Jacobians": len(of["found"]),
                    "found_with_products": float(of["found"].mean()),
                    "products_in_all": float(of["products"].mean()),
                    "passes": float(of["passes"].mean()),
                    "seconds": float(np.median(of["seconds"])),
                    "seconds_of_ARPACK_on_torch.func": float(
                        np.median(of["seconds"]) / np.median(plain)
                    ),
                    "largest_error": float(arrays["errors"][p, m].max()),
                    "largest_residual": float(arrays["residuals"][p, m].max()),
                    "largest_noise_stated": (
                        "" if method in PEERS else float(arrays["noise"][p, m].max())
                    ),
                    "statement": _summary(arrays["notes"][p, m].tolist()),
                }
            )
    return rows


def _summary(notes: list[str]) -> str:
    """Return each note once, with how often it was made where they differ."""
    counts = {note: notes.count(note) for note in notes}
    return "; ".join(
        f"{note} ({count})" if len(counts) > 1 else note for note, count in counts.items()
    )
