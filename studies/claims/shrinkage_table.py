"""The numbers of `shrinkage`: by noise level and size, and what they say of the published
claims.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from studies.frame.answer import Answer, Row
from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.findings import Finding, Standing, verdict_of
from studies.frame.statistics import Interval, mean_interval, ratio_interval
from studies.frame.study import Arrays

SOURCE = "Kadkhodaie, Guth, Simoncelli, Mallat 2024, arXiv 2310.02557"
ROUNDING = 1e-10
"""What factors and homogeneity may miss on the oracle."""
SPARSE, ALIKE = 0.1, 0.1
"""Share of n below which a rank is called low; and share of the error below which two denoisers
are called one, and of D below which J x is called D.
"""
KINDS = ("network", "linear")


def psnr(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratio of the peak, 2, to a mean squared difference, dB."""
    return np.asarray(10 * np.log10(4 / difference))


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level and quantity of the model, and for each size, noise level
    and quantity of pairs of small denoisers.
    """
    rows: list[Row] = []

    def row(what: str, size: int | str, t: int | float, name: str, interval: Interval) -> None:
        mean, low, high = interval
        ends: Row = {"mean": mean, "low": low, "high": high}
        rows.append({"denoiser": what, "trained_on": size, "time": t, "quantity": name, **ends})

    for k, t in enumerate(arrays["time"].tolist()):
        factor = arrays["factor"][k]
        for name, values in (
            ("largest factor", factor.max(-1)),
            ("smallest factor", factor.min(-1)),
            ("effective rank", arrays["rank"][k].astype(float)),
            ("asymmetry", arrays["asymmetry"][k]),
            ("|J x - D| / |D|", arrays["miss"][k]),
            ("the same from black", arrays["miss_from_black"][k]),
        ):
            row("model", "", t, name, mean_interval(values))
    for i, size in enumerate(arrays["size"].tolist()):
        for k, t in enumerate(arrays["time"].tolist()):
            for kind in KINDS:
                at = {key: arrays[f"{kind}_{key}"][i, k] for key in PAIR}
                row(kind, size, t, "PSNR between, dB", mean_interval(psnr(at["difference"])))
                row(kind, size, t, "PSNR to the digit, dB", mean_interval(psnr(at["error"])))
                share = ratio_interval(at["difference"] / 2, at["error"])
                row(kind, size, t, "difference / 2 error", share)
                row(kind, size, t, "overlap", mean_interval(at["overlap"]))
    return rows


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of the basis, of homogeneity, and of two halves."""
    n = arrays["factor"].shape[-1]
    factor_error, miss = arrays["oracle_factor_error"].max(), arrays["oracle_miss"].max()
    exact = np.abs(arrays["oracle_rank_error"]).max() == 0
    share, at_share = worst_level(arrays, arrays["rank"] / n)
    missed, at_missed = worst_level(arrays, arrays["miss_from_black"])
    where = f"{arrays['rank'].shape[1]} noisy digits"
    return [
        Finding(
            "A denoiser shrinks in an adaptive basis of few vectors: fewer than a tenth of n hold"
            " 99 % of |J|_F^2 at every noise level.",
            SOURCE,
            f"Gaussian prior: factors to {factor_error:.1g} (asked {ROUNDING:g}), effective rank"
            f" {'exact' if exact else 'not exact'}",
            bool(factor_error <= ROUNDING and exact),
            f"effective rank over n = {n}, {where}, {at_share}",
            share,
            verdict_of(share, high=SPARSE),
        ),
        Finding(
            "A denoiser is J x: within a tenth of |D|, as a network without biases is exactly.",
            SOURCE,
            f"Gaussian prior of zero mean: |J x - D| / |D| at most {miss:.1g} (asked {ROUNDING:g})",
            bool(miss <= ROUNDING),
            f"|J x - D| / |D| with pixels from black, of a network with biases, {where},"
            f" {at_missed}",
            missed,
            verdict_of(missed, high=ALIKE),
        ),
        of_two_halves(arrays, where),
    ]


def worst_level(arrays: Arrays, values: NDArray[np.float64]) -> tuple[Interval, str]:
    """Return the largest mean over noise levels of (times, samples) with its interval, and where it
    is, in words.
    """
    times, means = arrays["time"].tolist(), values.mean(1)
    listed = ", ".join(f"{t}: {mean:.2g}" for t, mean in zip(times, means, strict=True))
    k = int(means.argmax())
    return mean_interval(values[k]), f"the worst noise level, t = {times[k]} ({listed})"


def of_two_halves(arrays: Arrays, where: str) -> Finding:
    """Return what is found of two denoisers of disjoint digits; nothing if both are worse than
    Wiener filters, since networks agree before they have learnt anything.
    """
    sizes, times = arrays["size"].tolist(), arrays["time"].tolist()
    first, last = (
        [
            ratio_interval(difference / 2, error)
            for difference, error in zip(
                arrays["network_difference"][i], arrays["network_error"][i], strict=True
            )
        ]
        for i in (0, -1)
    )
    k = max(range(len(times)), key=lambda k: last[k][0])
    error, linear = (float(arrays[f"{kind}_error"][-1].mean()) for kind in KINDS)
    same = float(np.abs(arrays["oracle_same"] - 1).max())
    return Finding(
        "Two denoisers trained on enough disjoint digits are one function: half of their mean"
        " squared difference is less than a tenth of their error.",
        SOURCE,
        f"a Gaussian prior's denoiser and itself: eigenvectors overlap to {same:.1g} of 1",
        bool(same <= ROUNDING),
        f"half the squared difference over the error at {sizes[-1]:,} digits each, {where}, the"
        f" worst noise level, t = {times[k]} (at {sizes[0]} digits: {first[k][0]:.2f}; squared"
        f" error at all levels {error:.3f}, of Wiener filters {linear:.3f})",
        last[k],
        verdict_of(last[k], high=ALIKE) if error < linear else Standing.OPEN,
    )


ANSWER = Answer(
    ("denoiser", "trained_on", "time", "quantity", "mean"),
    lambda row: row["quantity"] not in ("smallest factor", "asymmetry", "|J x - D| / |D|"),
    across="quantity",
)
PAIR = {
    "difference": "mean squared difference of the two outputs",
    "error": "mean of the two mean squared errors",
    "overlap": "|U^T V|_F^2 / k of their ten leading eigenvectors",
}
"""What there is of a pair of denoisers at a noisy digit."""
VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "size": Variable("size", "digits that each small denoiser was trained on"),
    "drawn": Variable("drawn", "which eigenvectors are kept, 1 the first"),
    "training": Variable("", "what small denoisers were trained on, in words"),
    "factor": Variable("time digit k", "eigenvalues of the symmetric part of alpha_t J, falling"),
    "rank": Variable("time digit", "singular values of J that hold 99 % of |J|_F^2"),
    "miss": Variable("time digit", "|J x - D| / |D|"),
    "miss_from_black": Variable("time digit", "the same with x + alpha_t and D + 1"),
    "asymmetry": Variable("time digit", "|J - J^T|_F / |J + J^T|_F"),
    "vector": Variable("time digit drawn pixel", "eigenvectors of the symmetric part, length 1"),
    **{
        f"{kind}_{name}": Variable("size time digit", f"{kind}: {text}")
        for kind in KINDS
        for name, text in PAIR.items()
    },
    "oracle_factor_error": Variable("oracle_time", "Gaussian prior: largest error of a factor"),
    "oracle_miss": Variable("oracle_time", "Gaussian prior: |J x - D| / |D|"),
    "oracle_rank_error": Variable("oracle_time", "Gaussian prior: error of the effective rank"),
    "oracle_same": Variable("oracle_time", "Gaussian prior: overlap of its J with itself"),
}
