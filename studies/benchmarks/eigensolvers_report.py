"""What the benchmark of eigensolvers found: its variables and its table."""

from __future__ import annotations

import numpy as np

from studies.frame.answer import Row
from studies.frame.dataset import Variable
from studies.frame.study import Arrays

OURS, SUBSPACE = "eigenpairs, certified", "subspace iteration, 60 products"
ARPACK, ARPACK_PLAIN = "ARPACK on this operator", "ARPACK on torch.func.jvp, vjp"
METHODS = (OURS, ARPACK, ARPACK_PLAIN, SUBSPACE)
VARIABLES = {
    "operator": Variable("operator", "J, its symmetric or its skew part"),
    "method": Variable("method", "solver"),
    "products": Variable("operator method point", "products that it took"),
    "found": Variable("operator method point", "eigenvalues found, of those in the dense spectrum"),
    "seconds": Variable("operator method point", "time", "s"),
    "errors": Variable(
        "operator method point", "largest error, relative to the largest eigenvalue"
    ),
    "residuals": Variable("operator method point", "largest residual, relative alike"),
    "noise": Variable("operator point", "noise floor of the products"),
    "notes": Variable("operator point", "what the solver says"),
}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each operator and method; products are means, seconds medians, errors and
    residuals the largest of all, relative to the largest eigenvalue.
    """
    rows: list[Row] = []
    for p, part in enumerate(arrays["operator"].tolist()):
        for m, method in enumerate(METHODS):
            of = {key: arrays[key][p, m] for key in ("products", "found", "seconds")}
            noise, notes = ("", "") if m else (arrays["noise"][p], arrays["notes"][p].tolist())
            plain = arrays["seconds"][p, METHODS.index(ARPACK_PLAIN)]
            rows.append(
                {
                    "operator": part,
                    "method": method,
                    "Jacobians": len(of["found"]),
                    "found_with_products": float(of["found"].mean()),
                    "products_in_all": float(of["products"].mean()),
                    "more_than_ARPACK": int(
                        (of["found"] > arrays["products"][p, METHODS.index(ARPACK)]).sum()
                    ),
                    "seconds": float(np.median(of["seconds"])),
                    "seconds_of_ARPACK_on_torch.func": float(
                        np.median(of["seconds"]) / np.median(plain)
                    ),
                    "largest_error": float(arrays["errors"][p, m].max()),
                    "largest_residual": float(arrays["residuals"][p, m].max()),
                    "largest_noise_stated": float(np.max(noise)) if not m else "",
                    "statement": _summary(list(notes)),
                }
            )
    return rows


def _summary(notes: list[str]) -> str:
    """Return each note once, with how often it was made where they differ."""
    counts = {note: notes.count(note) for note in notes}
    return "; ".join(
        f"{note} ({count})" if len(counts) > 1 else note for note, count in counts.items()
    )
