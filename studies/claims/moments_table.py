"""The numbers of `moments`: by noise level, and what they say of the published claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from jacobian_lab.linops.densities import PROMINENCE
from studies.frame.answer import Answer, Row
from studies.frame.dataset import SAMPLES, SUBJECT, TIME, Variable
from studies.frame.findings import Finding, verdict_of
from studies.frame.statistics import Interval, fraction_interval, mean_interval, over_digits
from studies.frame.study import Arrays

Array = NDArray[np.float64]
SOURCE = "Manor, Michaeli 2024, arXiv 2309.13598"
WANTED = 1e-3
"""Relative error of the moments that is asked for."""
FEW = 0.05
"""Share of noisy digits whose moments no distribution may have."""
CLAIMS = (
    (
        "Higher moments of the posterior along a principal component are derivatives of the"
        " denoiser along it, which differences compute.",
        "stated error of the fourth moment over 3 variance^2",
    ),
    (
        "The four moments that a trained denoiser gives along its first component are those of a"
        " distribution.",
        "share with kurtosis below 1 + skewness^2, which none has",
    ),
    (
        "The density of largest entropy with four moments describes the posterior along a"
        " component better than the Gaussian of two.",
        "gain in log-likelihood of the clean digit where there is a density, nats",
    ),
    (
        "The posterior along its first component can have two modes.",
        "share of densities with two modes",
    ),
)
"""Claim, and quantity on digits."""


def relative_errors(arrays: Arrays, prefix: str = "") -> Array:
    """Return the true errors of variance, third and fourth moment relative to their sizes,
    (..., 3); the third's size is at least 1e-3 deviation^3, which it may have by chance.
    """
    found, exact = arrays[f"{prefix}moments"][..., 1:], arrays[f"{prefix}exact_moments"][..., 1:]
    size = np.abs(exact)
    size[..., 1] = np.maximum(size[..., 1], 1e-3 * exact[..., 0] ** 1.5)
    return np.asarray(np.abs(found - exact) / size)


def within_stated(arrays: Arrays, prefix: str = "") -> NDArray[np.bool_]:
    """Return where all four moments lie within their stated errors."""
    apart = np.abs(arrays[f"{prefix}moments"] - arrays[f"{prefix}exact_moments"])
    return np.asarray((apart <= arrays[f"{prefix}errors"]).all(-1))


def kurtosis_errors(errors: Array, moments: Array) -> Array:
    """Return the stated errors of the fourth moment relative to the Gaussian's, 3 variance^2."""
    return np.asarray(errors[..., 3] / (3 * moments[..., 1] ** 2))


def distance(a: Array, b: Array, z: Array) -> Array:
    """Return the total variation distance of densities on a grid, over the last axis."""
    return np.asarray(np.trapezoid(np.abs(a - b), z, axis=-1) / 2)


def gaussian_density(z: Array) -> Array:
    """Return the standard Gaussian's density."""
    return np.asarray(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))


def is_bimodal(densities: Array) -> NDArray[np.bool_]:
    """Return which densities, (..., m), have two modes or more, a twentieth of the higher one above
    the valley; NaNs have none.
    """
    rows = densities.reshape(-1, densities.shape[-1])
    found = [
        np.isfinite(row).all() and len(find_peaks(row, prominence=PROMINENCE * row.max())[0]) > 1
        for row in rows
    ]
    return np.array(found, dtype=bool).reshape(densities.shape[:-1])


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each source, noise level and quantity: the mean over noisy samples with its
    95 % interval.
    """
    rows: list[Row] = []
    for s, source in enumerate(arrays["source"].tolist()):
        for k, t in enumerate(arrays["time"].tolist()):
            at = {name: arrays[name][s, k] for name in PER_SAMPLE}
            rows += quantity_rows(source, t, at, arrays["z"], arrays["digit"])
    for k, t in enumerate(arrays["oracle_time"].tolist()):
        at = {
            name: arrays[f"oracle_{name}"][k] for name in PER_SAMPLE if f"oracle_{name}" in arrays
        }
        each = np.arange(len(at["gain"]))
        rows += quantity_rows("three Gaussians", t, at, arrays["z"], each)
    return rows


SHARES = ("two modes", "no density", "no distribution")
"""Quantities that are 1 or 0 of each sample."""
PARTIAL = ("gain", "TV to Gaussian", "TV to truth")
"""Quantities of the samples for which there is a density."""


def quantity_rows(source: str, t: int | float, at: Arrays, z: Array, digits: Any) -> list[Row]:
    """Return the rows of one source and noise level; intervals are over digits."""
    gauss, fits = gaussian_density(z), at["modes"] >= 0
    quantities: dict[str, Any] = {
        "posterior deviation": np.sqrt(at["moments"][:, 1]),
        "|skewness|": np.abs(at["skewness"]),
        "excess kurtosis": at["kurtosis"],
        "two modes": (at["modes"] > 1).astype(float),
        "no density": (at["modes"] < 0).astype(float),
        "gain": np.where(np.isfinite(at["gain"]), at["gain"], np.nan),
        "TV to Gaussian": np.where(fits, distance(at["density"], gauss, z), np.nan),
        "no distribution": (~at["possible"].astype(bool)).astype(float),
        "stated error of kurtosis": kurtosis_errors(at["errors"], at["moments"]),
    }
    if np.isfinite(at["exact_moments"]).all():
        quantities |= {
            "true error, worst of three": relative_errors(at).max(-1),
            "two modes, truth": is_bimodal(at["exact_density"]).astype(float),
            "TV to truth": np.where(fits, distance(at["density"], at["exact_density"], z), np.nan),
            "TV Gaussian to truth": distance(gauss, at["exact_density"], z),
        }
    else:
        quantities["clean digit, z^2"] = at["clean"] ** 2
    rows: list[Row] = []
    for name, values in quantities.items():
        interval = fraction_interval if name.split(",")[0] in SHARES else mean_interval
        known = ~np.isnan(values) if name in PARTIAL else np.full(len(values), True)
        mean, low, high = of_digits(values[known], digits[known], interval)
        ends: Row = {"mean": mean, "low": low, "high": high}
        most = float(np.max(values[known])) if known.any() else np.nan
        rows.append({"source": source, "time": t, "quantity": name, **ends, "largest": most})
    return rows


def of_digits(
    values: Array, digits: Any, interval: Callable[[Array], Interval] = mean_interval
) -> Interval:
    """Return the mean of samples and its interval over digits; NaN of none."""
    return interval(over_digits(values, digits)) if len(values) else (np.nan,) * 3


def by_digit(
    values: Array, digits: Any, interval: Callable[[Array], Interval] = mean_interval
) -> Interval:
    """Return the mean of (times, samples) and its interval over digits, each sample averaged over
    times as far as it is known.
    """
    known = np.isfinite(values).any(0)
    return of_digits(np.nanmean(values[:, known], axis=0), digits[known], interval)


def findings(arrays: Arrays) -> list[Finding]:
    """Return what is found of the moments, whether a distribution has them, of the density, and of
    two modes.
    """
    stated = kurtosis_errors(arrays["errors"][0], arrays["moments"][0])
    impossible = (~arrays["possible"][0].astype(bool)).astype(float)
    two, digits = (arrays["modes"][0] > 1).astype(float), arrays["digit"]
    count = f"{stated.shape[1]} noisy digits"
    rough, wrong = (int(values.mean(1).argmax()) for values in (stated, impossible))
    found = (
        (moments_on_oracle(arrays), of_digits(stated[rough], digits), (-np.inf, WANTED)),
        (
            possible_on_oracle(arrays),
            of_digits(impossible[wrong], digits, fraction_interval),
            (-np.inf, FEW),
        ),
        (density_on_oracle(arrays), by_digit(arrays["gain"][0], digits), (0, np.inf)),
        (modes_on_oracle(arrays), by_digit(two, digits, fraction_interval), (0.01, np.inf)),
    )
    seen = (
        f"{count}, the worst noise level ({means_by_time(arrays, stated)})",
        f"{count}, the worst noise level ({means_by_time(arrays, impossible)})",
        f"{count} ({means_by_time(arrays, arrays['gain'][0])})",
        f"{count} ({means_by_time(arrays, two)})",
    )
    return [
        Finding(
            claim, SOURCE, oracle, passed, f"{quantity}, {told}", value, verdict_of(value, *within)
        )
        for (claim, quantity), told, ((oracle, passed), value, within) in zip(
            CLAIMS, seen, found, strict=True
        )
    ]


def means_by_time(arrays: Arrays, values: Array) -> str:
    """Return the means of (times, samples) at the noise levels in words, as far as known."""
    means = zip(arrays["time"].tolist(), values, strict=True)
    return ", ".join(f"t = {t}: {np.nanmean(v):.2g}" for t, v in means if np.isfinite(v).any())


def moments_on_oracle(arrays: Arrays) -> tuple[str, bool]:
    """Return how exact the moments of three Gaussians are, in words, and whether as asked."""
    worst = float(relative_errors(arrays, "oracle_").max())
    inside = within_stated(arrays, "oracle_")
    told = (
        f"three Gaussians, {inside.size} noisy samples: relative error at most {worst:.1g} (asked"
        f" {WANTED:g}), within the stated error in {inside.sum()} of {inside.size}"
    )
    return told, bool(worst <= WANTED and inside.all())


def possible_on_oracle(arrays: Arrays) -> tuple[str, bool]:
    """Return how many moments of the two oracles no distribution has, in words, and whether
    none.
    """
    ten = int((~arrays["possible"][1].astype(bool)).sum())
    three = int((~arrays["oracle_possible"].astype(bool)).sum())
    told = (
        f"three Gaussians: {three} of {arrays['oracle_possible'].size}; ten Gaussians: {ten} of"
        f" {arrays['possible'][1].size} noisy digits"
    )
    return told, ten + three == 0


def density_on_oracle(arrays: Arrays) -> tuple[str, bool]:
    """Return how near the density of three Gaussians is to the truth, in words, and whether nearer
    than the Gaussian.
    """
    z, known = arrays["z"], arrays["oracle_modes"] >= 0
    exact, gain = arrays["oracle_exact_density"], arrays["oracle_gain"][known]
    ours = distance(arrays["oracle_density"], exact, z)[known].mean()
    theirs = distance(gaussian_density(z), exact, z)[known].mean()
    positive = (gain > -1e-6).sum()
    told = (
        f"three Gaussians: total variation to the truth {ours:.3f}, of the Gaussian {theirs:.3f};"
        f" expected gain positive in {positive} of {gain.size}"
    )
    return told, bool(ours < theirs and positive == gain.size)


def modes_on_oracle(arrays: Arrays) -> tuple[str, bool]:
    """Return how often the density of three Gaussians has two modes where the truth has, in words,
    and whether at least nine times in ten.
    """
    known = arrays["oracle_modes"] >= 0
    two, truly = (
        arrays["oracle_modes"][known] > 1,
        is_bimodal(arrays["oracle_exact_density"])[known],
    )
    both = (two & truly).sum()
    told = (
        f"three Gaussians: two modes of the density in {two.sum()} of {two.size} noisy samples, of"
        f" the truth in {truly.sum()}, both in {both}"
    )
    return told, bool(both >= 0.9 * two.sum())


ANSWER = Answer(
    ("source", "time", "quantity", "mean"),
    lambda row: (
        row["quantity"]
        in (
            "|skewness|",
            "excess kurtosis",
            "two modes",
            "no density",
            "gain",
            "TV to Gaussian",
            "TV to truth",
            "clean digit, z^2",
        )
    ),
    across="quantity",
)
PER_SAMPLE = {
    "moments": ("order", "mean, and central moments of orders 2 to 4, along the component"),
    "errors": ("order", "how far each may be off, as stated"),
    "exact_moments": ("order", "the moments in closed form, where they are known"),
    "skewness": ("", "third moment over deviation^3"),
    "kurtosis": ("", "fourth moment over variance^2, less 3"),
    "possible": ("", "whether any distribution has the moments"),
    "modes": ("", "modes of the density; -1 where no density has the moments"),
    "density": ("z", "density of largest entropy, of the standardised variable"),
    "exact_density": ("z", "the posterior's density, where it is known"),
    "clean": ("", "the clean digit along the component, standardised"),
    "gain": ("", "log-likelihood over the Gaussian's, nats: of the clean digit, or expected"),
}
"""What there is of each noisy sample: name -> further dimensions, description."""
VARIABLES = {
    **SUBJECT,
    **SAMPLES,
    "time": TIME,
    "source": Variable("source", "the model, or ten Gaussians fitted to digits"),
    "oracle_time": Variable("oracle_time", "noise levels of the three Gaussians"),
    "z": Variable("z", "distance from the mean, in standard deviations"),
    **{name: Variable(f"source time sample {d}", text) for name, (d, text) in PER_SAMPLE.items()},
    **{
        f"oracle_{name}": Variable(f"oracle_time case {d}", f"three Gaussians: {text}")
        for name, (d, text) in PER_SAMPLE.items()
    },
    "denoised": Variable("source time sample channel row column", "D(x_t)"),
    "component": Variable("source time sample channel row column", "the component v"),
}
