"""The command `jacobian-lab plot`: a finished run's figure, drawn anew without computing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from jacobian_lab import InputError, _require
from jacobian_lab._files import write_whole
from studies.archive.stored import finished
from studies.frame.study import figures

ENDINGS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class Plot:
    """Draw a run's figure anew. Example: jacobian-lab plot runs/eigenvalues-1a2b3c4d
    --style talk.mplstyle --to talk.svg.
    """

    POSITIONAL = ("run",)

    run: Path
    """Folder of the run."""
    style: Path | None = None
    """A style file of matplotlib, such as "font.size: 12", on top of the house's own."""
    to: Path | None = None
    """The file that is written: .png, .pdf or .svg; by default figure.png and figure.pdf in the
    folder.
    """

    def __post_init__(self) -> None:
        _require.options(self)
        if self.to is not None and self.to.suffix.lstrip(".") not in ENDINGS:
            raise InputError(f"--to must end in .png, .pdf or .svg: got {self.to}")


def plot_run(config: Plot) -> None:
    """Draw the figure; print where it is."""
    run = finished([config.run])[0]
    if run.study.plot is None:
        raise InputError(f"{run.study_name} draws no figure: its numbers are in table.csv")
    targets = (
        {ending: config.run / f"figure.{ending}" for ending in ("png", "pdf")}
        if config.to is None
        else {config.to.suffix.lstrip("."): config.to}
    )
    style = style_of(config.style)
    try:
        with run.told_if_other_code():
            drawn = figures(run.study, run.arrays(), targets, style)
    except RuntimeError as error:  # such as of text.usetex where there is no LaTeX
        raise InputError(
            f"the figure cannot be drawn with --style {config.style}: {str(error).splitlines()[0]}"
        ) from error
    for ending, path in targets.items():
        write_whole(path, drawn[ending])
    print(", ".join(map(str, targets.values())))


def style_of(path: Path | None) -> dict[str, Any]:
    """Return the settings in a style file; raise if it cannot be read or says something unknown."""
    if path is None:
        return {}
    try:
        known: Any = mpl.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
        keys = [line.split(":")[0].strip() for line in path.read_text().splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--style {path} is no style file of matplotlib: {error}") from error
    unknown = [key for key in keys if key and key[0] != "#" and key not in mpl.rcParams]
    if unknown:  # matplotlib only logs them
        raise InputError(f"--style {path} has what matplotlib does not know: {', '.join(unknown)}")
    return known
