"""Findings of published claims, and how they are told."""

import pytest

from studies.frame.findings import (
    Finding,
    Standing,
    findings_in_words,
    value_in_words,
    verdict_of,
)


@pytest.mark.parametrize(
    ("value", "bounds", "standing"),
    [
        ((2.0, 1.5, 2.5), {"low": 1}, Standing.HOLDS),
        ((2.0, 1.5, 2.5), {"low": 2}, Standing.OPEN),
        ((2.0, 1.5, 2.5), {"low": 3}, Standing.FAILS),
        ((2.0, 1.5, 2.5), {"high": 1}, Standing.FAILS),
        ((2.0, 1.5, 2.5), {"low": 1, "high": 2}, Standing.OPEN),
        ((0.0, 0.0, 0.0), {"low": 0}, Standing.FAILS),
        ((1.0, 1.0, 1.0), {"high": 1}, Standing.FAILS),
        ((2.0, 1.5, 2.5), {"low": 1.5}, Standing.OPEN),
        ((0.0, 0.0, 0.3), {"high": 0.5}, Standing.HOLDS),
        ((2.0, float("nan"), float("nan")), {"low": 1}, Standing.OPEN),
    ],
)
def test_a_claim_holds_only_where_the_whole_interval_does(value, bounds, standing):
    assert verdict_of(value, **bounds) is standing


def finding(passed=True):
    return Finding(
        "More is more", "Somebody 2026", "1 + 1 = 2 to 1e-12", passed, "more, dB", (3.0, 2.5, 3.5),
        Standing.HOLDS,
    )  # fmt: skip


def test_a_finding_says_claim_source_oracle_value_and_verdict():
    assert findings_in_words([finding()]).splitlines() == [
        "More is more (Somebody 2026)",
        "  oracle  passed: 1 + 1 = 2 to 1e-12",
        "  digits  more, dB: 3 [2.5, 3.5]",
        "  here    holds",
    ]
    assert finding(False).row()["oracle"].startswith("FAILED: ")


def test_what_is_no_number_is_said():
    nan = float("nan")
    assert value_in_words((nan, nan, nan)) == "no number"
    assert value_in_words((0.25, nan, nan)) == "0.25"
