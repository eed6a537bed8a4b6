"""The command `jacobian-lab audit`: whether J is what it claims to be, at noisy digits of several
noise levels.
"""

from __future__ import annotations

from dataclasses import dataclass

from jacobian_lab import InputError, audit
from studies.frame.models import operator_at
from studies.frame.options import OnModel
from studies.frame.study import check_times


@dataclass(frozen=True)
class Audit(OnModel):
    """Check J before any analysis. Example: jacobian-lab audit --digit 3 --times 500.

    Prints a table for each noise level, and writes nothing. Exit status 1 if a check fails.
    """

    times: tuple[int | float, ...] = (100, 500, 900)
    """Noise levels, 0 (clean) to 999 (noise); a flow takes sigma, up to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_times(self.times)
        if self.out is not None:
            raise InputError(
                f"--out {self.out}: an audit is printed and writes no folder; redirect what it"
                " prints"
            )


def report(config: Audit) -> bool:
    """Print the audits; return whether all checks pass."""
    model = config.load()
    for t in config.times:
        model.denoiser.schedule(t)  # an unknown time is refused before anything is computed
    inputs, passed = config.inputs(model), True
    for t in config.times:
        found = audit(
            operator_at(model.denoiser, inputs.clean[0], config.digit, t, config.seed), config.seed
        )
        print(f"{config.model}, {inputs.names[0]}, t = {t}\n{found}\n")
        passed = passed and bool(found)
    print(
        "all checks pass"
        if passed
        else "some checks fail: J is not to be trusted before they are mended"
    )
    return passed
