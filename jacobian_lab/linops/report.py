"""The report of an audit: checks with a figure, a limit and a verdict, printed as a table."""

from __future__ import annotations

from dataclasses import dataclass

from jacobian_lab.errors import InputError


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    figure: float
    limit: float
    advice: str
    """What is probably wrong, and what to do, if it fails."""

    @property
    def passed(self) -> bool:
        """Whether the figure is within its limit (a NaN is not)."""
        return bool(self.figure <= self.limit)


@dataclass(frozen=True)
class Report:
    """The checks; true if all pass, and printed as a table."""

    path: str
    """How `J v` is computed, and why."""
    checks: tuple[Check, ...]
    sweep: tuple[tuple[float, float], ...]
    """(h, distance of F' v to the central difference relative to |F' v|) for each step, F the
    network's own output.
    """
    notes: tuple[str, ...] = ()
    """Remarks that are no fault of the operator."""

    @property
    def noise(self) -> float:
        """Smallest distance over the sweep: as far as differences can confirm J."""
        return min(error for _, error in self.sweep)

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise InputError(
            f"no check {name!r}: expected one of {', '.join(check.name for check in self.checks)}"
        )

    def __str__(self) -> str:
        step, noise = min(self.sweep, key=lambda pair: pair[1])
        lines = [
            f"products: {self.path}",
            (
                f"central differences of the network's output agree to {noise:.1e}, at h ="
                f" {step:.1e} of |x_t|"
            ),
        ]
        for c in self.checks:
            verdict = "pass" if c.passed else f"FAIL  {c.advice}"
            lines.append(
                f"  {c.name:<16}{_short(c.figure):>8}  (at most {_short(c.limit):>7})  {verdict}"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    __repr__ = __str__


def _short(x: float) -> str:
    return f"{x:.0f}" if float(x).is_integer() and abs(x) < 1e6 else f"{x:.1e}"
