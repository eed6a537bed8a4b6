"""The table of `vae-newton`: scores and costs of each method, and the premises' medians."""

from __future__ import annotations

import numpy as np

from studies.frame.answer import Answer, Row
from studies.frame.statistics import mean_interval, rate_interval
from studies.frame.study import Arrays
from studies.latent.vae_premises import FORMS, REFERENCES, TASKS, VECTORS

PASSES = ("denoiser", "decoder", "decoder_with_graph", "encoder")


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each task and method: scores with 95 % intervals over the digits, cost, and
    the premises' medians.
    """
    rows: list[Row] = []
    names, count = arrays["rows"].tolist(), len(arrays["truth"])
    peaks = np.diff(arrays["resident"])[:, 0]
    for k, (task, method) in enumerate(names):
        missing = arrays["missing"][k]
        row: Row = {
            "task": task,
            "method": method,
            "digits": count,
            "residual_mean": float(missing.mean()),
            "residual_median": float(np.median(missing)),
        }
        for key, found in {
            "psnr": mean_interval(arrays["psnr"][k]),
            "agreement": rate_interval(int(arrays["agreement"][k].sum()), count),
        }.items():
            row |= dict(zip((key, f"{key}_low", f"{key}_high"), found, strict=True))
        row |= {
            "psnr_projected": float(arrays["psnr_projected"][k].mean()),
            **{
                f"{name}_passes": int(n)
                for name, n in zip(PASSES, arrays["passes"][k], strict=True)
            },
            "processor_seconds": float(arrays["seconds"][k]),
            "peak_MB_above_rest": float(peaks[k]),
            "peak_by_backprop": float(peaks[k] / peaks[names.index([task, "backprop"])]),
        }
        rows.append(row | _premises(arrays, task, method))
    return rows


def _premises(arrays: Arrays, task: str, method: str) -> Row:
    """Return the medians of what was measured: the same for all methods, but for the cosines of the
    three forms.
    """
    row: Row = {}
    k = list(TASKS).index(task)
    for v, name in enumerate(VECTORS):
        row[f"roundtrip, {name}"] = float(np.median(arrays["roundtrip"][..., v]))
    for v, name in enumerate(("largest eigenvalue", "norm", "share of negative eigenvalues")):
        row[f"{name} of J_E P J_D"] = float(np.median(arrays["loop"][:, :, k, v]))
    for r, name in enumerate(REFERENCES):
        row[f"cosine with {name}"] = (
            float(np.median(arrays["cosines"][:, :, k, FORMS.index(method), r]))
            if method in FORMS
            else ""
        )
    return row


ANSWER = Answer(
    (
        "task",
        "method",
        "residual_median",
        "psnr",
        "agreement",
        "denoiser_passes",
        "processor_seconds",
        "peak_MB_above_rest",
    )
)
