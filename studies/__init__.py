"""Studies: each a config, a compute and a plot, behind the command `jacobian-lab`.

`studies.run("eigenvalues", denoiser, images, times=(300, 700))` runs one from Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.direct import run_study as run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    """Import `run` when it is asked for: the command line's help needs none of it."""
    if name == "run":
        from studies.direct import run_study

        return run_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
