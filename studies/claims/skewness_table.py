"""The table of `skewness`, and what it finds."""

from __future__ import annotations

import numpy as np

from studies.frame.answer import Answer, Row
from studies.frame.findings import Finding, verdict_of
from studies.frame.statistics import Interval, mean_interval, ratio_interval
from studies.frame.study import Arrays

SOURCE = "Khelifa, Turner, Venkataramanan 2026, arXiv 2606.06179"
LEAST = 1e-3
"""A share that counts as none."""
NEAR = 0.1
"""How near a share is to that of a random matrix to be called alike."""
INFLATION = {300: (0.005, 0.015), 500: (0.005, 0.05), 700: (0.03, 0.07)}
"""Noise level -> what a time of J^T one step below was expected to add: 1 %, between, 5 %."""
LOSSES = {
    "symmetric": "A penalty on (J - J^T) v lowers the error of the denoiser.",
    "towards": "Training with inputs moved along the error, towards the clean sample, lowers the"
    " error of the denoiser (the regulariser of arXiv 2609.36210; the sign is ours).",
    "away": "Training with inputs moved along the error, away from the clean sample, lowers the"
    " error of the denoiser (the regulariser of arXiv 2609.36210; the sign is ours).",
}
"""Loss -> the claim."""


def over_samples(arrays: Arrays, name: str, loss: int, time: int | slice) -> np.ndarray:
    """Return a squared error by sample, the mean over trainings and the noise levels chosen."""
    chosen = arrays[name][loss][:, time]
    return np.asarray(chosen.reshape(-1, chosen.shape[-1]).mean(0))


def share_interval(
    arrays: Arrays, part: str, whole: str, loss: int, time: int | slice = slice(None)
) -> Interval:
    """Return the share of a part in a squared error, with its interval over samples."""
    return ratio_interval(*(over_samples(arrays, name, loss, time) for name in (part, whole)))


def solenoidal_bounds(
    arrays: Arrays, loss: int, time: int | slice = slice(None)
) -> tuple[Interval, Interval]:
    """Return a lower and an upper bound of the solenoidal share of |D - truth|^2, each with its
    interval over samples.
    """
    rest, least, most = share_interval(arrays, "no_solenoidal", "tried", loss, time)
    return (1 - rest, 1 - most, 1 - least), share_interval(
        arrays, "no_gradient", "tried", loss, time
    )


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each loss and noise level, then for each noise level of the model."""
    rows: list[Row] = []
    for k, loss in enumerate(arrays["loss"].tolist()):
        for m, t in enumerate(arrays["time"].tolist()):
            row: Row = {"of": "mixture", "loss": loss, "time": t}
            for name in ("error", "jacobian_error"):
                row |= _with(name, mean_interval(over_samples(arrays, name, k, m)))
            share = share_interval(arrays, "skew_error", "jacobian_error", k, m)
            row |= _with("skew_share_of_J_error", share)
            least, most = solenoidal_bounds(arrays, k, m)
            row |= _with("solenoidal_at_least", least) | _with("solenoidal_at_most", most)
            rows.append(row)
    for m, t in enumerate(arrays["model_time"].tolist()):
        row = {"of": "model", "loss": "", "time": t}
        row |= _with("asymmetry", mean_interval(arrays["same"][m]))
        row |= _with("asymmetry_shifted", mean_interval(arrays["shifted"][m]))
        row |= _with("inflation", mean_interval(arrays["shifted"][m] / arrays["same"][m] - 1))
        leading = arrays["leading_shifted"][m] / arrays["leading_same"][m] - 1
        row |= _with("leading_inflation", mean_interval(leading))
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, "") for name in names} for row in rows]


def _with(name: str, value: Interval) -> Row:
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, value), strict=True))


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of the skew part, of the losses, and of a shifted time."""
    error = float(arrays["product_error"])
    parts = arrays["symmetric_error"] + arrays["skew_error"]
    pythagoras = float(np.abs(parts / arrays["jacobian_error"] - 1).max())
    oracle = (
        f"J of the mixture by products: error {error:.1e}; |sym|^2 + |skew|^2 of the error of J"
        f" over |J - truth|^2: 1 to {pythagoras:.1e}"
    )
    passed = error < 1e-9 and pythagoras < 1e-9
    return [
        *_of_shares(arrays, oracle, passed),
        *(_of_loss(arrays, loss, claim, oracle, passed) for loss, claim in LOSSES.items()),
        *(
            _of_shift(arrays, m, int(t), oracle, passed)
            for m, t in enumerate(arrays["model_time"])
            if int(t) in INFLATION
        ),
    ]


def _of_shares(arrays: Arrays, oracle: str, passed: bool) -> list[Finding]:
    """Return the findings on plain training: shares of the error of D, and of J."""
    n, plain = int(arrays["size"]), arrays["loss"].tolist().index("plain")
    of_d, most = solenoidal_bounds(arrays, plain)
    of_j = share_interval(arrays, "skew_error", "jacobian_error", plain)
    random = (n - 1) / (2 * n)
    by_time = ", ".join(
        f"t = {t}: {share_interval(arrays, 'skew_error', 'jacobian_error', plain, m)[0]:.2f}"
        for m, t in enumerate(arrays["time"])
    )
    bounds = ", ".join(
        f"t = {t}: {bound:.2f} [{low:.2f}, {high:.2f}]"
        for m, t in enumerate(arrays["time"])
        for bound, low, high in (solenoidal_bounds(arrays, plain, m)[0],)
    )
    return [
        Finding(
            "The error of a learned score has a solenoidal part, which the densities do not see.",
            SOURCE,
            oracle,
            passed,
            "mixture, not digits: solenoidal share of |D - truth|^2, a lower bound; upper bound"
            f" {most[0]:.3f} [{most[1]:.3f}, {most[2]:.3f}]; lower bound by noise level: {bounds}",
            of_d,
            verdict_of(of_d, LEAST),
        ),
        Finding(
            f"The error of J is skew by as much as a random matrix is, (n - 1) / 2n = {random:.2f}"
            f" of its square, within {NEAR}.",
            "ours, beside arXiv 2606.06179",
            oracle,
            passed,
            f"mixture, not digits: |skew(J)|_F^2 / |J - truth|_F^2; {by_time}",
            of_j,
            verdict_of(of_j, random - NEAR, random + NEAR),
        ),
    ]


def _of_loss(arrays: Arrays, loss: str, claim: str, oracle: str, passed: bool) -> Finding:
    """Return the finding on one loss beside plain training, paired by sample."""
    names = arrays["loss"].tolist()
    k, plain = names.index(loss), names.index("plain")
    each = slice(None)
    value = ratio_interval(*(over_samples(arrays, "error", m, each) for m in (k, plain)))
    jacobian, before = (
        float(over_samples(arrays, "jacobian_error", m, each).mean()) for m in (k, plain)
    )
    shares = [share_interval(arrays, "skew_error", "jacobian_error", m)[0] for m in (k, plain)]
    by_training, by_time = (arrays["error"].mean(axes) for axes in ((2, 3), (1, 3)))
    trainings, times = (
        ", ".join(f"{ratio:.2f}" for ratio in (errors[k] / errors[plain]).tolist())
        for errors in (by_training, by_time)
    )
    return Finding(
        claim,
        SOURCE if loss == "symmetric" else "Graikos, Jojic, Samaras 2026, arXiv 2609.36210",
        oracle,
        passed,
        f"mixture, not digits: |D - truth|^2 with / without (each training: {trainings}; each"
        f" noise level, from t = {arrays['time'][0]}: {times});"
        f" |J - truth|_F^2: {jacobian / before:.2f}; skew share {shares[0]:.2f} / {shares[1]:.2f}",
        value,
        verdict_of(value, high=1.0),
    )


def _of_shift(arrays: Arrays, m: int, t: int, oracle: str, passed: bool) -> Finding:
    """Return the finding on J^T one time step below, at one noise level."""
    value = mean_interval(arrays["shifted"][m] / arrays["same"][m] - 1)
    leading = mean_interval(arrays["leading_shifted"][m] / arrays["leading_same"][m] - 1)
    low, high = INFLATION[t]
    return Finding(
        f"Taking J^T at t - 1 raises the asymmetry by {low:.1%} to {high:.1%} at t = {t}.",
        "a trial of ours, of the published Stable Diffusion notebooks",
        oracle,
        passed,
        f"digits: |J(t) - J(t-1)^T| / |J(t) + J(t-1)^T| over that of one time, less 1, t = {t};"
        f" asymmetry {arrays['same'][m].mean():.3f}; of the skew part's largest |eigenvalue|:"
        f" {leading[0]:.4f} [{leading[1]:.4f}, {leading[2]:.4f}]",
        value,
        verdict_of(value, low, high),
    )


ANSWER = Answer(
    (
        *("of", "loss", "time", "error", "jacobian_error", "skew_share_of_J_error"),
        *(
            "solenoidal_at_least",
            "solenoidal_at_most",
            "asymmetry",
            "inflation",
            "leading_inflation",
        ),
    ),
)
