"""What `evaluate` found: the scores by noise level and of the samples, and their figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies.frame.dataset import IMAGE, SUBJECT, TIME, Variable
from studies.frame.figure_style import show
from studies.frame.figure_text import write_subject
from studies.frame.study import Arrays

ENOUGH = 1000
"""Samples from which on a Fréchet distance in the judge's features means something."""
VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "alpha": Variable("time", "alpha_t: x_t = alpha_t x_0 + sigma_t noise", coordinate=True),
    "sigma": Variable("time", "sigma_t: x_t = alpha_t x_0 + sigma_t noise", coordinate=True),
    "n": Variable("", "numbers in a sample"),
    "squared": Variable("time image", "|D - x_0|^2 / n"),
    "trace": Variable("time jacobian", "tr J"),
    "asymmetry": Variable("time jacobian", "|J - J^T|_F / |J + J^T|_F"),
    "smallest": Variable("time jacobian", "smallest eigenvalue of the symmetric part"),
    "largest": Variable("time jacobian", "largest eigenvalue of the symmetric part"),
    "trace_error": Variable("time jacobian", "how far the trace may be off"),
    "asymmetry_error": Variable("time jacobian", "how far the asymmetry may be off"),
    "sampled": Variable("distance", "distances of samples to real digits: see the table"),
    "real": Variable("distance", "the same distances of other real digits"),
    "confidence": Variable("drawn", "the judge's confidence in each sample"),
    "held_out_accuracy": Variable("", "share of held-out digits that the judge names rightly"),
    "steps": Variable("", "sampling times"),
    "samples": Variable("", "samples that were drawn"),
    "grid": Variable(f"shown {IMAGE}", "the first samples"),
}


def summary(arrays: Arrays) -> dict[str, dict[str, Any]]:
    """Return the scores by noise level and of the samples, as numbers: what the card states."""
    alpha, sigma, squared = arrays["alpha"], arrays["sigma"], arrays["squared"]
    levels = {}
    for k, t in enumerate(arrays["time"]):
        ratio = (alpha[k] / sigma[k]) ** 2
        levels[str(t)] = {
            "epsilon_error": ratio * squared[k].mean(),
            **(
                {"epsilon_error_se": ratio * squared[k].std(ddof=1) / np.sqrt(squared.shape[1])}
                if squared.shape[1] > 1
                else {}
            ),
            "x0_error": squared[k].mean(),
            "trace": arrays["trace"][k].mean(),
            "trace_by_tweedie": alpha[k] / sigma[k] ** 2 * arrays["n"] * squared[k].mean(),
            "asymmetry": arrays["asymmetry"][k].mean(),
            **{
                f"{name}_se_of_estimates": np.linalg.norm(error) / len(error)
                for name in ("trace", "asymmetry")
                if (error := arrays[f"{name}_error"][k]).any()
            },
            "smallest_symmetric_eigenvalue": arrays["smallest"][k].min(),
            "largest_symmetric_eigenvalue": arrays["largest"][k].max(),
        }
    if "sampled" not in arrays:
        return {"levels": levels, "samples": {}}
    names = ("frechet", "kernel", "kernel_deviation")
    samples = {
        **{f"{name}_samples_to_real": arrays["sampled"][k] for k, name in enumerate(names)},
        **{f"{name}_real_to_real": arrays["real"][k] for k, name in enumerate(names)},
        "mean_confidence_of_judge": arrays["confidence"].mean(),
        "judge_accuracy_held_out": arrays["held_out_accuracy"],
    }
    return {"levels": levels, "samples": samples}


def plot(arrays: Arrays) -> Figure:
    """Draw error, trace and asymmetry against the noise level, and a grid of 64 samples."""
    figure = Figure(figsize=(7.2, 5.4))
    parts: Any = figure.subfigures(1, 2, width_ratios=[2, 3])
    left, right = parts
    _plot_levels(left, arrays)
    if arrays["grid"].ndim == 4:
        _plot_samples(right, arrays)
    write_subject(figure, arrays)
    return figure


def _plot_samples(figure: Any, arrays: Arrays) -> None:
    """Draw 64 samples, and say how far they are from real digits, if that was measured."""
    count = int(arrays["samples"])
    _, channels, height, width = arrays["grid"].shape
    mosaic = arrays["grid"].reshape(8, 8, channels, height, width).transpose(2, 0, 3, 1, 4)
    title = f"64 of {count} samples, {int(arrays['steps'])} DDIM steps"
    if "sampled" in arrays:
        title += (
            f"\nFréchet distance to real digits {arrays['sampled'][0]:.2f}, real to real"
            f" {arrays['real'][0]:.2f}"
        )
        if count < ENOUGH:
            title += f"\n(too few samples: under {ENOUGH} the distances say little)"
    show(figure.subplots(), mosaic.reshape(channels, 8 * height, 8 * width), title)


def _plot_levels(figure: Any, arrays: Arrays) -> None:
    """Draw error, trace and asymmetry against the noise level."""
    errors, traces, asymmetries = figure.subplots(3, 1)
    levels = list(summary(arrays)["levels"].values())
    t = arrays["time"]
    errors.semilogy(t, [level["epsilon_error"] for level in levels], "o-", color="#333333")
    errors.set(
        title=r"Held-out error of $\epsilon$, per pixel",
        xlabel="time $t$",
        ylabel=r"$|\hat\epsilon - \epsilon|^2 / n$",
    )
    dots = traces.plot(t, arrays["trace"], ".", color="#0072b2", alpha=0.5)
    dots[0].set_label("tr $J$, one digit")
    traces.plot(t, arrays["trace"].mean(1), "-", color="#0072b2", label="tr $J$, mean")
    traces.plot(
        t,
        [level["trace_by_tweedie"] for level in levels],
        "--",
        color="#d55e00",
        label=r"$\alpha\, \sigma^{-2}\, \mathrm{E}|x_0 - D|^2$",
    )
    traces.axhline(0, color="#999999", linewidth=0.5)
    traces.set(title="Trace of $J$", xlabel="time $t$", ylabel="tr $J$")
    traces.legend()
    asymmetries.plot(t, arrays["asymmetry"], ".", color="#009e73", alpha=0.5)
    asymmetries.plot(t, arrays["asymmetry"].mean(1), "-", color="#009e73")
    asymmetries.set(
        title="Asymmetry of $J$",
        xlabel="time $t$",
        ylabel=r"$|J - J^T|_F \,/\, |J + J^T|_F$",
        ylim=(0, None),
    )
