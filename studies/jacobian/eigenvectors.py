r"""The leading eigenvectors of J as images: the ways in which the clean image could be another one.

By Tweedie `Cov[x_0 | x_t] = (sigma^2 / alpha) J`, so the eigenvectors of J are the principal
components of the posterior, and eigenvalues mu give their standard deviations `s = sigma sqrt(mu /
alpha)`. Those of the symmetric part are drawn, with the denoised image moved along them; J's own
are compared with them, since they differ as far as J is not symmetric. Of a latent model the
components are of latents, and what is drawn is decoded.

References
----------
Manor, Michaeli (2024), *On the posterior distribution in denoising: application to uncertainty
quantification*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from jacobian_lab import InputError, JacobianOperator, eigenpairs, symmetric_part, trace
from studies.frame.answer import Answer, Row
from studies.frame.dataset import IMAGE, SUBJECT, TIME, Variable
from studies.frame.figure_style import show
from studies.frame.figure_text import subject, write_subject
from studies.frame.models import Model, check_shape, operator_at
from studies.frame.options import OnModel, model_files
from studies.frame.study import Arrays, Pieces, Study

MOVES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Standard deviations by which the denoised image is moved."""


@dataclass(frozen=True)
class Eigenvectors(OnModel):
    """Draw the principal components of the posterior. Example: jacobian-lab eigenvectors --digit 3
    --time 700 --k 4.
    """

    time: int | float = 600
    """Noise level, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""
    k: int = 5
    """Leading eigenvectors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= 20:
            raise InputError(f"--k must lie from 1 to 20: got {self.k}")


def compute(config: Eigenvectors, pieces: Pieces) -> Arrays:
    """Return eigenvalues and vectors of the symmetric part, the nearest ones of J, images of both,
    what the table needs.
    """
    model = config.load()
    check_shape(config.model, model, "In Python, jacobian_lab.eigenpairs takes any J")
    inputs = config.inputs(model)

    def operator() -> JacobianOperator:
        return operator_at(model.denoiser, inputs.clean[0], config.digit, config.time, config.seed)

    J = operator()
    found = pieces("pairs", lambda: leading_pairs(operator(), config.k)) | {
        "alpha": np.array(J.alpha_t),
        "sigma": np.array(J.sigma_t),
    }
    denoised = J.products.d
    return (
        found
        | move(model, denoised, found["vectors"], deviations(found))
        | {
            "x_t": J.products.x[0].cpu().numpy(),
            "clean": inputs.images[0].cpu().numpy(),
            "time": np.array(config.time),
            **subject(config),
            "space": np.array(model.space),
        }
    )


def leading_pairs(J: JacobianOperator, k: int) -> Arrays:
    """Return the k leading eigenvectors of the symmetric part, and the nearest ones of J."""
    S = eigenpairs(symmetric_part(J), k, "LR", symmetric=True)
    A = eigenpairs(J, 2 * k, "LR", left=True)  # more, so that the order may differ
    # a sign that does not depend on the run
    vectors = S.vectors * np.where(S.vectors.sum(0) < 0, -1, 1)
    assert A.left is not None
    alike = np.abs(vectors.T @ A.vectors)
    nearest = alike.argmax(1)
    between = np.abs((A.left.conj() * A.vectors).sum(0))
    total = trace(J)
    return {
        "values": S.values,
        "vectors": vectors.T,
        "residuals": S.residuals,
        "errors": S.errors,
        "own": A.values[nearest],
        "own_cosine": alike.max(1),
        "left_right_cosine": between[nearest],
        "products": np.array(S.products + A.products + total.products),
        "trace": np.array(total.interval()),
    }


@torch.no_grad()
def move(model: Model, denoised: torch.Tensor, vectors: np.ndarray, scales: np.ndarray) -> Arrays:
    """Return images of a denoised sample, (1, C, h, w), moved along vectors, (count, n), by MOVES
    times their scales.

    Returns
    -------
    dict
        "moved" (count, MOVES, c, H, W); "components" (count, c, H, W), the vectors as images: of
        latents how the decoded image changes along them, `(decode(d + s v) - decode(d - s v)) / 2
        s`.
    """
    directions = torch.from_numpy(vectors).to(denoised).reshape(-1, *denoised.shape[1:])
    s = torch.from_numpy(scales).to(denoised)
    moved = torch.stack(
        [model.decode(denoised + (m * s).reshape(-1, 1, 1, 1) * directions) for m in MOVES], dim=1
    )
    components = directions
    if model.space == "latent":
        at = {m: k for k, m in enumerate(MOVES)}
        change = (moved[:, at[1.0]] - moved[:, at[-1.0]]) / 2
        components = torch.where(s > 0, 1 / s, 0).reshape(-1, 1, 1, 1) * change
    return {"moved": moved.cpu().numpy(), "components": components.cpu().numpy()}


def deviations(arrays: Arrays) -> np.ndarray:
    """Return the posterior's standard deviation along each component, in the unit of x_0: pixels,
    [-1, 1], or latents.
    """
    return np.asarray(arrays["sigma"] * np.sqrt(np.maximum(arrays["values"], 0) / arrays["alpha"]))


def table(arrays: Arrays) -> list[Row]:
    """Return one row for each component."""
    total, rows = float(arrays["trace"].mean()), list[Row]()
    for k, (mu, s) in enumerate(
        zip(arrays["values"].tolist(), deviations(arrays).tolist(), strict=True)
    ):
        rows.append(
            {
                "component": k + 1,
                "eigenvalue_of_symmetric_part": mu,
                "stated_error": float(arrays["errors"][k]),
                "posterior_standard_deviation": s,
                "share_of_trace": mu / total,
                "trace": total,
                "half_interval_of_trace": float(np.ptp(arrays["trace"]) / 2),
                "nearest_eigenvalue_of_J": float(arrays["own"][k].real),
                "its_imaginary_part": float(arrays["own"][k].imag),
                "cosine_of_their_vectors": float(arrays["own_cosine"][k]),
                "cosine_of_left_and_right_vector_of_J": float(arrays["left_right_cosine"][k]),
            }
        )
    return rows


def plot(arrays: Arrays) -> Figure:
    """Draw the digit, and each component beside the denoised image moved along it."""
    count, latent = len(arrays["values"]), str(arrays["space"]) == "latent"
    figure = Figure(figsize=(7.2, 0.92 * max(count, 3) + 0.8))
    write_subject(
        figure,
        arrays,
        f"$t$ = {arrays['time']}; components $v_k$, their standard deviations $s_k$",
    )
    parts: Any = figure.subfigures(1, 2, width_ratios=(1.2, 6))
    left, right = parts
    denoised = arrays["moved"][0, MOVES.index(0)]
    shown = (
        ("clean", arrays["clean"]),
        ("$x_t\\,/\\,3$", arrays["x_t"] / 3),
        ("$D(x_t)$", denoised),
    )
    for axes, (name, image) in zip(left.subplots(3, 1), shown, strict=True):
        show(axes, image, name)
    shifts = [shift for shift in MOVES if shift]
    panels: Any = right.subplots(count, 1 + len(shifts), squeeze=False)
    limit = float(np.abs(arrays["components"]).max()) or 1.0
    for k, (row, s) in enumerate(zip(panels, deviations(arrays), strict=True)):
        drawn = show(row[0], arrays["components"][k], "", limit)
        label = rf"$\mu_{{{k + 1}}}$ = {arrays['values'][k]:.2f}" "\n" rf"$s_{{{k + 1}}}$ = {s:.1f}"
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axes, shift in zip(row[1:], shifts, strict=True):
            show(axes, arrays["moved"][k, MOVES.index(shift)])
    panels[0, 0].set_title("component $v_k$" + (",\ndecoded" if latent else ""))
    for axes, shift in zip(panels[0, 1:], shifts, strict=True):
        axes.set_title(f"$D(x_t) {shift:+.0f}\\,s_k\\,v_k$")
    bar = right.colorbar(
        drawn,
        ax=list(panels.flat),
        location="bottom",
        shrink=0.2,
        aspect=12,
        pad=0.03,
        anchor=(0, 1),
    )
    bar.set_label("entry of the component")
    return figure


ANSWER = Answer(
    (
        "component",
        "eigenvalue_of_symmetric_part",
        "stated_error",
        "posterior_standard_deviation",
        "share_of_trace",
        "nearest_eigenvalue_of_J",
        "cosine_of_their_vectors",
    )
)
VARIABLES = {
    **SUBJECT,
    "time": Variable("", TIME.description),
    "alpha": Variable("", "alpha_t: x_t = alpha_t x_0 + sigma_t noise"),
    "sigma": Variable("", "sigma_t: x_t = alpha_t x_0 + sigma_t noise"),
    "space": Variable("", "pixels or latent"),
    "values": Variable("k", "leading eigenvalues of the symmetric part of J"),
    "vectors": Variable("k pixel", "its eigenvectors, of length 1"),
    "residuals": Variable("k", "|S v - value v|"),
    "errors": Variable("k", "how far a value may be off, as the solver states"),
    "own": Variable("k", "eigenvalue of J whose vector is nearest"),
    "own_cosine": Variable("k", "cosine of the two vectors"),
    "left_right_cosine": Variable("k", "cosine of left and right eigenvector of J"),
    "products": Variable("", "products J v and J^T u that it took"),
    "trace": Variable("bound", "95 % interval of tr J: low and high"),
    "moved": Variable(f"k move {IMAGE}", "D(x_t) moved along each vector, decoded"),
    "components": Variable(f"k {IMAGE}", "the vectors as images"),
    "x_t": Variable("c h w", "noisy sample"),
    "clean": Variable(IMAGE, "clean image"),
}
STUDY = Study(
    "eigenvectors",
    Eigenvectors,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
)
