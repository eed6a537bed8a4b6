r"""The leading eigenvectors of J as images: the ways in which the clean image could be another one.

By Tweedie `Cov[x_0 | x_t] = (sigma^2 / alpha) J`, so the eigenvectors of J are the principal
components of the posterior, and eigenvalues mu give their standard deviations `s = sigma sqrt(mu /
alpha)`. Those of the symmetric part are drawn, with the denoised image moved along them; J's own
are compared with them, since they differ as far as J is not symmetric. Beside them is the
posterior's density along each, the one of largest entropy with its four moments. Of a latent model
the
components are of latents, and what is drawn is decoded.

References
----------
Manor, Michaeli (2024), *On the posterior distribution in denoising: application to uncertainty
quantification*.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from jacobian_lab import (
    ConvergenceWarning,
    Denoiser,
    InputError,
    JacobianOperator,
    eigenpairs,
    maximum_entropy,
    posterior_moments,
    symmetric_part,
    trace,
)
from studies.frame.answer import Answer, Row
from studies.frame.dataset import IMAGE, SUBJECT, TIME, Variable
from studies.frame.figure_text import subject
from studies.frame.models import Model, check_shape, operator_at
from studies.frame.options import OnModel, model_files
from studies.frame.study import Arrays, Pieces, Study
from studies.jacobian.eigenvectors_plot import MOVES, deviations, plot

Z = np.linspace(-4, 4, 201)
"""Where the density is kept, in standard deviations."""


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
    x_t, vectors = J.products.x, found["vectors"]
    along = pieces("densities", lambda: densities(model.denoiser, x_t, config.time, vectors))
    return (
        found
        | along
        | move(model, denoised, vectors, deviations(found))
        | {
            "x_t": x_t[0].cpu().numpy(),
            "clean": inputs.images[0].cpu().numpy(),
            "time": np.array(config.time),
            **subject(config),
            "space": np.array(model.space),
            "z": Z,
        }
    )


def leading_pairs(J: JacobianOperator, k: int) -> Arrays:
    """Return the k leading eigenvectors of the symmetric part, and the nearest ones of J."""
    S = eigenpairs(symmetric_part(J), k, "LR", symmetric=True)
    # more, so that the order may differ
    A = eigenpairs(J, min(2 * k, J.shape[0]), "LR", left=True)
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


def densities(denoiser: Denoiser, x_t: torch.Tensor, t: int | float, vectors: np.ndarray) -> Arrays:
    """Return skewness, excess kurtosis and its stated error, and the density of largest entropy
    along each vector, (count, n); NaN where there is none: no distribution has the moments, or the
    network takes no batch.
    """
    found = {name: np.full(len(vectors), np.nan) for name in ("skewness", "kurtosis", "off")}
    density = np.full((len(vectors), len(Z)), np.nan)
    for k, v in enumerate(vectors):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # then it is not drawn
            try:
                moments = posterior_moments(denoiser, x_t, t, v)
                found["skewness"][k] = moments.skewness
                found["kurtosis"][k] = moments.excess_kurtosis
                found["off"][k] = moments.kurtosis_error
                shape = maximum_entropy(moments)
            except InputError:
                continue
        if shape.converged:
            s = moments.deviation
            density[k] = shape(moments.mean + s * Z) * s
    return {
        "skewness": found["skewness"],
        "excess_kurtosis": found["kurtosis"],
        "kurtosis_error": found["off"],
        "density": density,
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


def table(arrays: Arrays) -> list[Row]:
    """Return one row for each component."""
    total, rows = float(arrays["trace"].mean()), list[Row]()

    def number(name: str, k: int) -> float | str:
        """Return an entry, or nothing if it is not known."""
        value = float(arrays[name][k]) if name in arrays else np.nan
        return value if np.isfinite(value) else ""

    for k, (mu, s) in enumerate(
        zip(arrays["values"].tolist(), deviations(arrays).tolist(), strict=True)
    ):
        rows.append(
            {
                "component": k + 1,
                "eigenvalue_of_symmetric_part": mu,
                "stated_error": float(arrays["errors"][k]),
                "posterior_standard_deviation": s,
                "skewness": number("skewness", k),
                "excess_kurtosis": number("excess_kurtosis", k),
                "error_of_kurtosis": number("kurtosis_error", k),
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


ANSWER = Answer(
    (
        "component",
        "eigenvalue_of_symmetric_part",
        "stated_error",
        "posterior_standard_deviation",
        "skewness",
        "excess_kurtosis",
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
    "skewness": Variable("k", "of the posterior along each vector"),
    "excess_kurtosis": Variable("k", "of the posterior along each vector; 0 of a Gaussian"),
    "kurtosis_error": Variable("k", "how far that may be off, as stated"),
    "z": Variable("z", "distance from D(x_t) along a vector, in standard deviations"),
    "density": Variable("k z", "density of largest entropy with four moments, of z"),
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
