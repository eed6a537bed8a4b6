r"""How does the guidance scale change J? Its largest eigenvalues, its trace and its asymmetry, at
several noise levels.

Classifier-free guidance is affine in its scale s, and so is its Jacobian, at one x_t:

    D_s = D_u + s (D_c - D_u)        J_s = J_u + s (J_c - J_u)

with the caption (c), and without it or with a negative one (u). So the trace is a straight line in
s. Were D_u and D_c posterior means, J_s would be symmetric at every s, but beyond s = 1 not a
covariance: nothing keeps its eigenvalues positive or small. How large they become, and how
asymmetric J_s, is measured on captioned digits: by products at every scale, with the bound of the
eigenvalue and the intervals of the sums, beside the dense J_u and J_c of the first digit, combined,
in float64.

References
----------
Ho, Salimans (2022), *Classifier-free diffusion guidance*.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from jacobian_lab import (
    ConvergenceWarning,
    Denoiser,
    InputError,
    JacobianOperator,
    asymmetry,
    eigenpairs,
    guided,
    trace,
)
from jacobian_lab.diffusion.guidance import Guidance
from studies.frame.answer import Answer, Row
from studies.frame.figure_text import subject
from studies.frame.model_files import LATENT
from studies.frame.models import Inputs, Model, is_latent, open_model, operator_at
from studies.frame.options import OnImages, model_files
from studies.frame.study import Arrays, Pieces, Study, check_times
from studies.frame.survey import collect
from studies.jacobian.guidance_plot import MEASURES, VARIABLES, plot

COUNT = 3
"""Leading eigenvalues."""


@dataclass(frozen=True)
class GuidanceStudy(OnImages):
    """Measure what guidance does to J. Example: jacobian-lab guidance --digits 1 --guidances 1 4
    --times 300 700.
    """

    model: str = LATENT
    """mnist-latent, a pipeline's folder or its hub id."""
    prompt: str = ""
    """What the image shows; of a digit by default its caption, such as "a photo of a seven"."""
    negative_prompt: str = ""
    """What guidance leads away from; by default the empty caption."""
    digits: int = 3
    """Digits of the survey: this many, from `digit` on."""
    guidances: tuple[float, ...] = (0, 1, 2, 4, 8)
    """Guidance scales: 0 is the negative prompt's network, 1 the prompt's."""
    times: tuple[int | float, ...] = (100, 300, 500, 700, 900)
    """Noise levels, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""

    def __post_init__(self) -> None:
        if not is_latent(self.model):
            raise InputError(
                f"--model {self.model} takes no prompt, hence no guidance: take {LATENT}, a"
                " pipeline's folder or a hub id"
            )
        if self.images and not self.prompt:
            shown = " ".join(map(str, self.images))
            raise InputError(f"--images {shown} has no caption: say with --prompt what it shows")
        super().__post_init__()
        check_times(self.times)
        if not self.guidances or not np.isfinite(self.guidances).all():
            raise InputError(
                "--guidances must be one or more numbers: got "
                f"{' '.join(map(str, self.guidances)) or 'none'}"
            )
        self.check_digits()

    def caption(self, digit: int) -> str:
        """Return the prompt of a digit."""
        from mnist.latent import caption

        return self.prompt or caption(digit % 10)

    def load(self, caption: str, device: str) -> Model:
        """Return the model with both its networks, of the caption and of the negative prompt."""
        return open_model(
            self.model,
            device,
            prompt=caption,
            negative_prompt=self.negative_prompt,
            guidance=2.0,
        )


def at_scale(denoiser: Denoiser, scale: float) -> Denoiser:
    """Return a guided denoiser, guided by another scale; 0 and 1 are one of its two networks,
    exactly.
    """
    both = denoiser.network
    assert isinstance(both, Guidance)
    network = guided(both.conditional, both.unconditional, scale) if scale else both.unconditional
    return Denoiser(network, denoiser.schedule, denoiser.prediction, denoiser.shape)


def compute(config: GuidanceStudy, pieces: Pieces) -> Arrays:
    """Return measures (times, scales, digits), the first digit's truth (times, scales), and its
    denoised images.
    """
    model = config.load(config.caption(config.digit), config.device)
    for t in config.times:
        model.denoiser.schedule(t)  # an unknown time is refused before anything is computed
    inputs = config.inputs(model, config.digits)
    captions = [config.caption(i) for i in inputs.numbers]  # a file may hold several images
    models = {captions[0]: model}
    models |= {text: config.load(text, config.device) for text in {*captions} - {*models}}

    def at(t: int | float, scale: float, k: int) -> Arrays:
        J = operator_at(
            at_scale(models[captions[k]].denoiser, scale),
            inputs.clean[k],
            inputs.numbers[k],
            t,
            config.seed,
        )
        return measures_by_products(J, config.seed) | _image(model, J)

    arrays = collect(
        pieces, "guided", at, time=config.times, scale=config.guidances, sample=range(len(captions))
    )
    return (
        arrays
        | {"denoised": arrays["denoised"][:, :, 0]}
        | _truth(config, pieces, model, inputs)
        | {
            "time": np.array(config.times),
            **subject(config),
            "guidance": np.array(config.guidances),
            "digit": np.array(inputs.numbers),
            "sample": np.array(inputs.names),
            "captions": np.array(captions),
            "clean": inputs.images[0].cpu().numpy(),
        }
    )


def measures_by_products(J: JacobianOperator, seed: int) -> Arrays:
    """Return the moduli of the leading eigenvalues, (COUNT,), trace and asymmetry, with what
    products say of their errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the table tells
        pairs = eigenpairs(J, min(COUNT, J.shape[0]))
    total, skew = trace(J, seed=seed), asymmetry(J, seed=seed)
    return {
        "eigenvalues": abs(pairs.values[:COUNT]),
        "largest": np.array(abs(pairs.values[0])),
        "largest_interval": abs(pairs.values[0]) + np.array([-1, 1]) * pairs.errors[0],
        "converged": np.array(pairs.converged),
        "trace": np.array(total.value),
        "trace_interval": np.array(total.interval()),
        "asymmetry": np.array(skew.value),
        "asymmetry_interval": np.array(skew.interval()),
        "products": np.array(pairs.products + total.products + skew.products),
    }


@torch.no_grad()
def _image(model: Model, J: JacobianOperator) -> Arrays:
    return {"denoised": model.decode(J.products.d)[0].cpu().numpy()}


def _truth(config: GuidanceStudy, pieces: Pieces, model: Model, inputs: Inputs) -> Arrays:
    """Return the measures of the first digit from dense Jacobians in float64, (times, scales); NaN
    where J is too large.
    """
    shape = (len(config.times), len(config.guidances))
    unknown = {f"{key}_dense": np.full(shape, np.nan) for key in MEASURES} | {
        "smallest_real_dense": np.full(shape, np.nan)
    }
    if not model.is_dense:
        return unknown
    exact, clean = model.opened("cpu", torch.float64), inputs.clean[0].cpu().double()

    def dense(t: int | float) -> Arrays:
        return {
            name: (
                operator_at(
                    at_scale(exact.denoiser, scale), clean, inputs.numbers[0], t, config.seed
                ).dense()
            )
            for name, scale in (("u", 0), ("c", 1))
        }

    pairs = collect(pieces, "dense truth", dense, time=config.times)
    rows = [
        [dense_measures(u + s * (c - u)) for s in config.guidances]
        for u, c in zip(pairs["u"], pairs["c"], strict=True)
    ]
    return {key: np.array([[cell[key] for cell in row] for row in rows]) for key in unknown}


def dense_measures(A: NDArray[np.float64]) -> dict[str, float]:
    """Return the measures of a dense J, (n, n), and the smallest real part of its eigenvalues."""
    values = np.linalg.eigvals(A)
    return {
        "largest_dense": abs(values).max(),
        "trace_dense": np.trace(A),
        "smallest_real_dense": values.real.min(),
        "asymmetry_dense": float(np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T)),
    }


def table(arrays: Arrays) -> list[Row]:
    """Return a row for each noise level, scale, digit and measure; the smaller eigenvalues without
    a bound.
    """
    rows: list[Row] = []
    for k, s, i in np.ndindex(arrays["trace"].shape):
        head: Row = {
            "time": arrays["time"][k].item(),
            "scale": float(arrays["guidance"][s]),
            "digit": int(arrays["digit"][i]),
            "caption": str(arrays["captions"][i]),
        }
        rows += [head | row for row in _quantities(arrays, k, s, i)]
    return rows


def _quantities(arrays: Arrays, k: int, s: int, i: int) -> list[Row]:
    """Return a row for each quantity at one noise level, scale and digit."""
    converged, products = (int(arrays[key][k, s, i]) for key in ("converged", "products"))
    rows = []
    for key in MEASURES:
        low, high = arrays[f"{key}_interval"][k, s, i].tolist()
        truth = float(arrays[f"{key}_dense"][k, s])
        dense = truth if i == 0 and np.isfinite(truth) else ""
        name, value = "|eigenvalue| 1" if key == "largest" else key, float(arrays[key][k, s, i])
        rows.append(_row(name, value, low, high, dense, converged, products))
    for rank, value in enumerate(arrays["eigenvalues"][k, s, i][1:].tolist(), start=2):
        rows.append(_row(f"|eigenvalue| {rank}", value, "", "", "", converged, products))
    smallest = float(arrays["smallest_real_dense"][k, s])
    if i == 0 and np.isfinite(smallest):
        name = "smallest real part of an eigenvalue"
        rows.append(_row(name, smallest, "", "", smallest, "", ""))
    return rows


def _row(quantity: str, *values: str | float) -> Row:
    names = ("value", "low", "high", "dense", "converged", "products")
    return {"quantity": quantity, **dict(zip(names, values, strict=True))}


ANSWER = Answer(
    ("time", "scale", "quantity", "value"),
    lambda row: row["quantity"] in ("|eigenvalue| 1", "trace", "asymmetry"),
    over=("digit",),
    by=("scale",),
    across="quantity",
)
STUDY = Study(
    "guidance",
    GuidanceStudy,
    compute,
    table,
    plot,
    models=model_files,
    answer=ANSWER,
    variables=VARIABLES,
)
