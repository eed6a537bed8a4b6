"""Studies: each a config, a compute and a plot, behind the command `jacobian-lab`.

`studies.run("eigenvalues", denoiser, images, times=(300, 700))` runs one from Python;
`studies.open("runs/eigenvalues-1a2b3c4d")` returns a finished run's data, an `xarray.Dataset`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.archive.stored import open_run as open  # noqa: A004
    from studies.direct import run_study as run

__all__ = ["open", "run"]


def __getattr__(name: str) -> Any:
    """Import a function when it is asked for: the command line's help needs none."""
    if name == "run":
        from studies.direct import run_study

        return run_study
    if name == "open":
        from studies.archive.stored import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
