r"""How many digits of the products are right, and what a finite difference loses.

On a float32 network, against float64: the dense J; `<J u, v> = <u, J^T v>` over random pairs; and
the error of forward and central differences against their step h, whose optimum balances truncation
(h or h^2) and rounding (eps / h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from jacobian_lab import InputError, JacobianOperator
from jacobian_lab.derivative.products import Method
from mnist.evaluate import noisy_digit
from studies.frame.answer import Answer, Row
from studies.frame.dataset import SUBJECT, TIME, Variable
from studies.frame.figure_style import COLOURS
from studies.frame.figure_text import subject, write_subject
from studies.frame.models import Model
from studies.frame.options import OnModel, model_files
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect

LARGEST = 4096
"""Size n of the largest dense J that is compared."""
METHODS: tuple[Method, ...] = ("forward", "central")


@dataclass(frozen=True)
class Accuracy(OnModel):
    """Measure the rounding of the products. Example: jacobian-lab accuracy --times 500 --vectors
    4.
    """

    times: tuple[int | float, ...] = (300, 500, 700)
    """Noise levels, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    vectors: int = 16
    """Random vectors for the finite differences."""
    pairs: int = 100
    """Random pairs for the adjointness."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        for name in ("vectors", "pairs"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1: got {getattr(self, name)}")


def compute(config: Accuracy, pieces: Pieces) -> Arrays:
    """Return errors relative to float64, by time."""
    model = config.load()
    wide = config.load(dtype=torch.float64)
    inputs = config.inputs(model)
    image = inputs.clean[0]
    check_dense(config, model)
    rng = np.random.default_rng(config.seed)
    n = image.numel()
    V, U, W = (
        rng.standard_normal((n, count)) for count in (config.vectors, config.pairs, config.pairs)
    )
    h = np.geomspace(1e-6, 1, 25)

    def at(t: int | float) -> Arrays:
        single, double = model.denoiser, wide.denoiser
        x_t = noisy_digit(single, image, t, config.seed, config.digit)
        exact, rounded = JacobianOperator(double, x_t.double(), t), JacobianOperator(single, x_t, t)
        dense, truth = rounded.dense(), exact.dense()
        return {
            "dense_error": np.array(np.linalg.norm(dense - truth) / np.linalg.norm(truth)),
            "product_error": _relative(rounded @ V, truth @ V),
            "difference_error": difference_errors(rounded, V, truth @ V, h),
            **adjointness(rounded, U, W),
        }

    found = collect(pieces, "accuracy", at, time=config.times)
    defaults = [
        JacobianOperator(model.denoiser, image, config.times[0], products=method).products.step
        for method in METHODS
    ]
    return found | {
        "time": np.array(config.times),
        "h": h,
        "default_h": np.array(defaults),
        "method": np.array(METHODS),
        **subject(config),
    }


def check_dense(config: Accuracy, model: Model) -> None:
    """Raise unless the dense J fits, and the schedule has the times."""
    if model.size > LARGEST:
        raise InputError(
            f"accuracy takes the dense J, and --model {config.model} has n = {model.size:,}:"
            f" expected at most {LARGEST:,}. `jacobian-lab audit` checks products at any size"
        )
    for t in config.times:
        model.denoiser.schedule(t)


def difference_errors(J: JacobianOperator, V: np.ndarray, right: np.ndarray, h: np.ndarray) -> Any:
    """Return the errors of differences, (methods, steps, vectors), at the point of J."""
    p, errors = J.products, np.empty((len(METHODS), len(h), V.shape[1]))
    for k, method in enumerate(METHODS):
        for m, step in enumerate(h):
            by_difference = JacobianOperator(p.denoiser, p.x, p.t, products=method, step=step)
            errors[k, m] = _relative(by_difference @ V, right)
    return errors


def adjointness(J: JacobianOperator, U: np.ndarray, W: np.ndarray) -> Arrays:
    """Return |<J u, w> - <u, J^T w>| for pairs of columns, (n, pairs), relative to |J u||w| and to
    |<J u, w>|.
    """
    JU, JtW = J @ U, J.T @ W
    size = np.linalg.norm(JU, axis=0) * np.linalg.norm(W, axis=0)
    apart = np.abs((JU * W).sum(0) - (U * JtW).sum(0))
    return {
        "adjointness": apart / size,
        "adjointness_by_value": apart / np.abs((JU * W).sum(0)),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return the exact products' errors, then the differences' errors against h; the best h of each
    is marked.
    """
    rows: list[Row] = []

    def row(t: int | float, quantity: str, h: float | str, value: float, note: str = "") -> None:
        rows.append(
            {"time": t, "quantity": quantity, "h": h, "relative_error": value, "note": note}
        )

    for k, t in enumerate(arrays["time"].tolist()):
        row(t, "dense J, float32 against float64, Frobenius", "", float(arrays["dense_error"][k]))
        row(t, "exact J v, median", "", float(np.median(arrays["product_error"][k])))
        row(
            t,
            "adjointness, relative to |J u||v|, largest of the pairs",
            "",
            float(arrays["adjointness"][k].max()),
        )
        for name, figure in (("median", np.median), ("largest", np.max)):
            error = float(figure(arrays["adjointness_by_value"][k]))
            row(t, f"adjointness, relative to |<J u, v>|, {name} of the pairs", "", error)
        for m, method in enumerate(METHODS):
            median = np.median(arrays["difference_error"][k, m], axis=1)
            for h, value in zip(arrays["h"], median, strict=True):
                row(
                    t,
                    f"{method} difference, median",
                    float(h),
                    float(value),
                    "optimum" if value == median.min() else "",
                )
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw the error of the finite differences against their step, and the exact product's
    below.
    """
    figure = Figure(figsize=(7.2, 3.2))
    write_subject(figure, arrays, "lines: medians, bands: smallest to largest")
    for k, (axes, t) in enumerate(
        zip(
            figure.subplots(1, len(arrays["time"]), sharey=True, squeeze=False)[0],
            arrays["time"].tolist(),
            strict=True,
        )
    ):
        for m, method in enumerate(METHODS):
            colour = COLOURS[method]
            errors = arrays["difference_error"][k, m]
            axes.loglog(
                arrays["h"], np.median(errors, axis=1), color=colour, label=f"{method} difference"
            )
            axes.fill_between(
                arrays["h"], errors.min(1), errors.max(1), color=colour, alpha=0.15, linewidth=0
            )
            axes.axvline(arrays["default_h"][m], color=colour, linewidth=0.6, linestyle=":")
        axes.axhline(
            np.median(arrays["product_error"][k]),
            color="#333333",
            linewidth=1,
            linestyle="--",
            label="exact product",
        )
        axes.set(title=f"$t$ = {t}", xlabel=r"step $h\,|v| \,/\, |x_t|$", xticks=(1e-5, 1e-3, 1e-1))
    figure.axes[-1].plot([], [], ":", color="#333333", linewidth=0.6, label="default step")
    figure.axes[0].set_ylabel(r"error of $J v$, relative")
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(a - b, axis=0) / np.linalg.norm(b, axis=0))


ANSWER = Answer(
    ("quantity", "time", "relative_error"),
    lambda row: row["h"] == "" or row["note"] == "optimum",
    across="time",
)
VARIABLES = {
    **SUBJECT,
    "time": TIME,
    "method": Variable("method", "kind of difference"),
    "h": Variable("h", "step of the differences, relative to v scaled to the size of x_t"),
    "default_h": Variable("method", "the step that the library takes"),
    "dense_error": Variable("time", "|J - truth|_F / |truth|_F, the truth in float64"),
    "product_error": Variable("time vector", "|J v - truth| / |truth| of exact products"),
    "difference_error": Variable("time method h vector", "the same of differences"),
    "adjointness": Variable("time pair", "|<J u, w> - <u, J^T w>| / (|J u| |w|)"),
    "adjointness_by_value": Variable("time pair", "|<J u, w> - <u, J^T w>| / |<J u, w>|"),
}
STUDY = Study(
    "accuracy",
    Accuracy,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
)
