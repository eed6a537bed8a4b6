"""A study from Python: `studies.run("eigenvalues", denoiser, images, times=(300, 700))`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from jacobian_lab import InputError, _require
from studies.commands import COMMANDS, study_of
from studies.frame.answer import Row
from studies.frame.figure_style import STYLE
from studies.frame.study import Arrays, Pieces, answer_text
from studies.frame.user_models import registered

DEFAULT = "mnist"
"""The model of a study that takes one."""


class Result(NamedTuple):
    """What a study found; no folder is written."""

    arrays: Arrays
    """As in data.nc."""
    rows: list[Row]
    """As in table.csv."""
    figure: Figure
    answer: str
    """What the command prints at its end."""


def run_study(
    study: str, model: Any = DEFAULT, images: Tensor | None = None, **options: Any
) -> Result:
    """Run a study on a model and samples at hand.

    Parameters
    ----------
    study : str
        The name of its command, such as "eigenvalues"; it must be a study, which has a figure.
    model : Denoiser, model of latents, or str
        A `Denoiser`; an object with `denoiser`, `encode`, `decode` and `image_shape`; or what
        `--model` takes. It is copied, and not changed.
    images : Tensor, shape (N, *shape), optional
        Clean samples of the model, images in [-1, 1]. Held-out digits by default, for models of
        them.
    **options
        Of the command, with underscores: `times=(300, 700)`.

    Raises
    ------
    InputError
        If there is no such study or option, or as the study says.
    """
    commands = {name: command for group in COMMANDS.values() for name, command in group.items()}
    command = commands.get(study)
    if command is None or command.function or study_of(command).plot is None:
        raise InputError(f"{study!r} is no study with a figure; jacobian-lab --help lists them")
    found = study_of(command)
    known = found.config.__dataclass_fields__
    with TemporaryDirectory() as folder, registered(model) as name:
        if "model" in known or name != DEFAULT:
            options["model"] = name
        if images is not None:
            _require.tensor("images", images)
            np.save(Path(folder) / "given.npy", images.detach().cpu().float().numpy())
            options["images"] = (Path(folder) / "given.npy",)
        if unknown := sorted(set(options) - set(known)):
            raise InputError(
                f"{study} has no option {', '.join(unknown)}: expected of"
                f" {', '.join(name for name, field in known.items() if field.init)}"
            )
        arrays = found.compute(found.config(**options), Pieces(Path(folder)))
    rows, findings = found.table(arrays), found.findings(arrays) if found.findings else []
    assert found.plot is not None
    with mpl.rc_context(STYLE):
        figure = found.plot(arrays)
    return Result(arrays, rows, figure, answer_text(found, rows, findings))
