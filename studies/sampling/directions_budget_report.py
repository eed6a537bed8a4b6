"""The table and the figure of `directions_budget`, from what it stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.frame.answer import Row
from studies.frame.dataset import IMAGE, SUBJECT, Variable
from studies.frame.figure_style import COLOURS, LABELS, show
from studies.frame.figure_text import plain_ticks, write_subject
from studies.frame.statistics import mean_interval, rate_interval
from studies.frame.study import Arrays

MEASURES = ("residual", "psnr", "ssim", "agreement", "doubt", "distance", "size")
MEASURED = {
    "residual": Variable("", "RMSE of the observed pixels"),
    "psnr": Variable("", "PSNR to the digit", "dB"),
    "ssim": Variable("", "structural similarity to the digit"),
    "agreement": Variable("", "whether the judge sees the digit"),
    "doubt": Variable("", "the judge's cross entropy", "nat"),
    "distance": Variable("", "distance of the judge's features to those of the nearest real digit"),
    "size": Variable("", "largest RMS of x_t on the way, relative to the schedule's"),
}
VARIABLES = {
    **SUBJECT,
    "task": Variable("", "what is observed"),
    "tolerance": Variable("", "residual up to which the search takes a setting"),
    "direction": Variable("entry", "direction of the Newton step"),
    "budget": Variable("entry", "network evaluations; 0: outside the budget"),
    "setting": Variable("entry", "the Newton step in words"),
    "times": Variable("entry", "sampling times"),
    "count": Variable("entry", "digits"),
    "passes": Variable("entry pass", "forward passes, J v and J^T u that a sample cost"),
    "residuals": Variable("entry state", "median RMSE of the observed pixels along sampling"),
    "sizes": Variable("entry state", "median RMS of x_t, relative to the schedule's"),
    "evaluations": Variable("entry state", "network evaluations up to there"),
    "images": Variable(f"entry shown {IMAGE}", "the first samples"),
    "truth": Variable(f"shown {IMAGE}", "the first digits"),
    "observed": Variable(f"shown {IMAGE}", "what is observed of them"),
    "distance_of_real": Variable("sample", "distance of real digits' features"),
    "search_direction": Variable("tried", "direction of the Newton step"),
    "search_budget": Variable("tried", "network evaluations"),
    "search_setting": Variable("tried", "the Newton step in words"),
    "search_distance_of_real": Variable("searched", "distance of real digits' features"),
    "chosen": Variable("choice", "indices of the settings that were chosen"),
    **{name: replace(said, dims="entry sample") for name, said in MEASURED.items()},
    **{f"search_{name}": replace(said, dims="tried searched") for name, said in MEASURED.items()},
}


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each run, then for each setting of the search: means and rates with 95 %
    intervals.
    """
    rows = []
    for i, direction in enumerate(arrays["direction"].tolist()):
        budget, passes = int(arrays["budget"][i]), arrays["passes"][i].tolist()
        row: Row = {
            "part": "run" if budget else "outside the budget",
            "direction": direction,
            "budget": budget or "",
            "setting": str(arrays["setting"][i]),
            "times": int(arrays["times"][i]),
            "evaluations": sum(passes),
        }
        row |= dict(zip(("forward", "jvp", "vjp"), passes, strict=True))
        rows.append(
            row
            | _scored(
                {key: arrays[key][i, : arrays["count"][i]] for key in MEASURES},
                arrays["distance_of_real"],
            )
        )
    for i, direction in enumerate(arrays["search_direction"].tolist()):
        row = {
            "part": "search, chosen" if i in arrays["chosen"] else "search",
            "direction": direction,
            "budget": int(arrays["search_budget"][i]),
            "setting": str(arrays["search_setting"][i]),
        }
        row |= dict.fromkeys(("times", "evaluations", "forward", "jvp", "vjp"), "")
        rows.append(
            row
            | _scored(
                {key: arrays[f"search_{key}"][i] for key in MEASURES},
                arrays["search_distance_of_real"],
            )
        )
    return rows


def _scored(measures: Arrays, real: Any) -> Row:
    """Return the means with their intervals over the digits that did not diverge, the distance
    relative to the real digits'; a digit that diverged is not named rightly.
    """
    fine = np.isfinite(measures["doubt"])
    row: Row = {"digits": len(fine), "diverged": int((~fine).sum())}
    for key in MEASURES:
        values = measures[key][fine]
        names = (key, f"{key}_low", f"{key}_high")
        if not fine.any():
            row |= dict.fromkeys(names, "")
        elif key == "agreement":
            row |= dict(zip(names, rate_interval(int(values.sum()), len(fine)), strict=True))
        else:
            row |= dict(
                zip(
                    names,
                    mean_interval(values / real.mean() if key == "distance" else values),
                    strict=True,
                )
            )
    return row


def plot(arrays: Arrays) -> Figure:
    """Draw the paths at the largest budget, the search, the samples' scores by budget; below, the
    same digits by each run.
    """
    figure = Figure(figsize=(7.2, 9.2))
    count = arrays["agreement"].shape[1]
    write_subject(figure, arrays, f"task {arrays['task']}, {count} digits")
    parts: Any = figure.subfigures(2, 1, height_ratios=[5.2, 4.0])
    top, bottom = parts[0].subplots(2, 3)
    _plot_paths(top[0], top[1], arrays)
    _plot_search(top[2], arrays)
    rows = [row for row in table(arrays) if not str(row["part"]).startswith("search")]
    for axes, key, label in zip(
        bottom,
        ("residual", "agreement", "distance"),
        ("residual", "judge agrees", "distance to digits"),
        strict=True,
    ):
        _plot_scores(axes, arrays, rows, key)
        axes.set(ylabel=label, xlabel="network evaluations")
    bottom[0].set(
        yscale="log",
        ylim=(min(float(row["residual"]) for row in rows if row["residual"] != "") / 2, None),
    )
    bottom[1].set(
        title=f"Means, 95 % intervals;\nexact: means of {arrays['count'].min()} digits",
        ylim=(-0.03, 1.03),
    )
    bottom[2].axhline(1, color="#999999", linewidth=0.5, zorder=0)
    parts[0].legend(*bottom[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    _plot_digits(parts[1], arrays)
    return figure


def _largest(arrays: Arrays) -> list[int]:
    """Return the runs at the largest budget, and those outside of all."""
    budgets = arrays["budget"].tolist()
    return [i for i, budget in enumerate(budgets) if budget in (0, max(budgets))]


def _plot_paths(left: Axes, right: Axes, arrays: Arrays) -> None:
    """Draw the residual, and the size of x_t, along the largest budget."""
    for axes, key, label in (
        (left, "residuals", "residual"),
        (right, "sizes", "$|x_t|$, relative"),
    ):
        for i in (i for i in _largest(arrays) if arrays["budget"][i]):
            axes.plot(arrays["evaluations"][i], arrays[key][i], **_line(arrays, i))
        axes.set(yscale="log", xlabel="network evaluations", ylabel=label)
        plain_ticks(axes.yaxis)
    left.set_title(
        f"Along the largest budget, {int(arrays['budget'].max())}\n(median of the digits)"
    )
    right.axhline(1, color="#999999", linewidth=0.5, zorder=0)
    right.set_title("Size of $x_t$, over that\nof the noisy true digit")


def _plot_digits(figure: Any, arrays: Arrays) -> None:
    """Draw the same digits by each run at the largest budget."""
    lines = [("true digit", arrays["truth"]), ("observed", arrays["observed"])]
    for i in _largest(arrays):
        if arrays["budget"][i]:
            spent = np.nanmax(arrays["evaluations"][i])
            lines.append((f"{_name(arrays, i)}\n{spent:.0f} passes", arrays["images"][i]))
    exact = [i for i in _largest(arrays) if not arrays["budget"][i]]
    if exact:
        found = np.concatenate([arrays["images"][i, : arrays["count"][i]] for i in exact])
        names = [str(arrays["setting"][i]).split(", rcond = ")[-1] for i in exact]
        label = f"exact, {LABELS['exact']}, in turn\nrcond {', '.join(names)}"
        lines.append((label, found[: len(arrays["truth"])]))
    panels = figure.subplots(len(lines), len(arrays["truth"]), squeeze=False)
    for line, (name, images) in zip(panels, lines, strict=True):
        for axes, image in zip(line, images, strict=False):
            if np.isfinite(image).all():
                show(axes, image)
        for axes in line:
            axes.axis("on" if axes.images or axes is line[0] else "off")
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)


def _plot_search(axes: Axes, arrays: Arrays) -> None:
    """Draw each setting's residual and distance from the digits, the chosen ones filled."""
    budget = int(arrays["budget"].max())
    rows = [
        row
        for row in table(arrays)
        if str(row["part"]).startswith("search")
        and row["budget"] == budget
        and row["residual"] != ""
    ]
    for row in rows:
        colour = COLOURS[str(row["direction"])]
        axes.plot(
            row["residual"],
            row["distance"],
            "o",
            color=colour,
            markerfacecolor=colour if row["part"] != "search" else "none",
        )
    axes.axvline(float(arrays["tolerance"]), color="#999999", linewidth=0.5, zorder=0)
    axes.axhline(1, color="#999999", linewidth=0.5, zorder=0)
    axes.set(
        xscale="log",
        xlabel="residual",
        ylabel="distance to digits",
        title=f"The search at {budget} evaluations\n(filled: chosen; line: tolerance)",
    )
    plain_ticks(axes.xaxis)


def _plot_scores(axes: Axes, arrays: Arrays, rows: list[Row], key: str) -> None:
    """Draw a measure with its intervals by budget, the directions side by side; the exact one has a
    place of its own.
    """
    budgets = sorted(set(arrays["budget"].tolist()) - {0})
    kinds = list(dict.fromkeys(arrays["direction"].tolist()))
    for i, row in enumerate(rows):
        if row[key] == "" or (row["budget"] and row["budget"] != budgets[0]):
            continue
        mine = (
            [r for r in rows if r["direction"] == row["direction"] and r[key] != ""]
            if row["budget"]
            else [row]
        )
        shift = (
            0.11 * (kinds.index(str(row["direction"])) - 1.5)
            if row["budget"]
            else 0.2 * (i - len(rows) + 1.5)
        )
        x = [(budgets.index(r["budget"]) if r["budget"] else len(budgets)) + shift for r in mine]
        y, low, high = (
            np.array([float(r[name]) for r in mine]) for name in (key, f"{key}_low", f"{key}_high")
        )
        bars = np.maximum([y - np.maximum(low, 1e-9 * y), high - y], 0) if row["budget"] else None
        axes.errorbar(x, y, yerr=bars, marker="o", elinewidth=0.8, **_line(arrays, i))
    ticks = [*map(str, budgets)]
    outside = [row for row in rows if not row["budget"]]
    if outside:
        ticks.append(f"exact,\n{int(float(outside[0]['evaluations']))}")
        axes.axvline(len(budgets) - 0.5, color="#999999", linewidth=0.5, linestyle=":")
    axes.set_xticks(range(len(ticks)), ticks)


def _name(arrays: Arrays, i: int) -> str:
    """Return a run's direction in words and signs."""
    direction = str(arrays["direction"][i])
    label = LABELS[direction] if direction == "krylov" else f"{direction}, {LABELS[direction]}"
    return (
        f"{label}, {str(arrays['setting'][i]).split(', ')[-1]}" if direction == "exact" else label
    )


def _line(arrays: Arrays, i: int) -> dict[str, Any]:
    """Return how a run is drawn: the first exact one filled, the others hollow."""
    direction = str(arrays["direction"][i])
    hollow = direction == "exact" and i != np.flatnonzero(arrays["direction"] == "exact")[0]
    return {
        "color": COLOURS[direction],
        "markerfacecolor": "none" if hollow else COLOURS[direction],
        "label": _name(arrays, i),
    }
