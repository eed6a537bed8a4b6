"""What a study finds of a published claim, and whether it holds here.

A study of a claim asserts first what must be so where the answer is known, on an oracle; only then
its value on digits says something. `Study.findings` turns a run's arrays into findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import isnan

from studies.frame.answer import Row, terminal_table
from studies.frame.statistics import Interval


class Standing(Enum):
    """What the digits say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "open"


@dataclass(frozen=True)
class Finding:
    """A published claim, what the oracle says of the method, and what the digits say of the claim.

    Parameters
    ----------
    claim : str
        One sentence, as the source means it.
    source : str
        Such as "Graikos et al. 2026, arXiv 2609.36210".
    oracle : str
        The assertion where the answer is known, with its figures.
    passed : bool
        Whether the assertion is true.
    quantity : str
        What was measured on digits, with its unit if it has one.
    value : tuple of float
        The value and its 95 % interval: (value, low, high).
    verdict : Standing
    """

    claim: str
    source: str
    oracle: str
    passed: bool
    quantity: str
    value: Interval
    verdict: Standing

    def row(self) -> Row:
        """Return the row of the table of claims."""
        value, low, high = map(float, self.value)
        return {
            "claim": self.claim,
            "source": self.source,
            "oracle": f"{'passed' if self.passed else 'FAILED'}: {self.oracle}",
            "quantity": self.quantity,
            "value": value,
            "low": low,
            "high": high,
            "holds here": self.verdict.value,
        }


def verdict_of(value: Interval, low: float = -float("inf"), high: float = float("inf")) -> Standing:
    """Return whether a value with its interval lies between low and high, as the claim says, and
    touches neither; open if the interval lies partly there.
    """
    _, least, most = value
    if low < least and most < high:
        return Standing.HOLDS
    return Standing.FAILS if most <= low or least >= high else Standing.OPEN


def findings_in_words(findings: list[Finding]) -> str:
    """Return findings as a study prints them below its table."""
    return "\n\n".join(
        f"{f.claim} ({f.source})\n"
        f"  oracle  {f.row()['oracle']}\n"
        f"  digits  {f.quantity}: {value_in_words(f.value)}\n"
        f"  here    {f.verdict.value}"
        for f in findings
    )


def value_in_words(value: Interval) -> str:
    """Return a value with its interval as a table shows it; "no number" of NaN."""
    row: Row = dict(zip(("value", "low", "high"), map(float, value), strict=True))
    return "no number" if isnan(value[0]) else terminal_table([row]).splitlines()[1]
