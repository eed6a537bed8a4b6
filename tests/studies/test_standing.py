"""Who is first of a task and a budget."""

import json

import numpy as np
import pytest

from studies.contest.standing import Summary, behind_the_first


def test_runs_are_compared_with_the_first_of_their_budget_digit_by_digit():
    rng = np.random.default_rng(0)
    digits = rng.normal(20, 5, 50)  # easy and hard ones, the same for all
    near, few = digits - 0.5 + 0.01 * rng.standard_normal(50), digits + 9
    psnr = np.stack([digits, near, digits + 9, digits, np.where(np.arange(50) < 3, few, np.nan)])
    agreement = np.ones((5, 50))
    agreement[1, :10] = np.nan  # failed, so not named
    entries = [
        {"task": "half", "method": name, "setting": setting, "parameters": {}, "steps": 1}
        for name, setting in (
            ("a", "searched"),
            ("b", "searched"),
            ("c", "searched"),
            ("d", "authors"),
            ("e", "searched"),  # few digits, drawn well
        )
    ]
    found = behind_the_first(
        {
            "entries": np.array([json.dumps(entry) for entry in entries]),
            "budgets": np.array([25, 100]),
            "passes": np.array([[100, 0, 0], [50, 45, 0], [125, 0, 0], [100, 0, 0], [99, 0, 0]]),
            "residual": np.zeros((5, 50)),
            "psnr": psnr,
            "agreement": agreement,
        }
    )
    assert found.keys() == {0, 1, 2, 4}
    assert found[4]["psnr_behind_low"] > 10
    assert found[0]["psnr_behind"] == found[0]["agreement_behind"] == 0
    assert found[1]["psnr_behind_low"] < 0.5 < found[1]["psnr_behind_high"]
    assert found[1]["psnr_behind_high"] - found[1]["psnr_behind_low"] < 0.02
    assert found[1]["agreement_behind"] == pytest.approx(0.2)
    assert found[2]["psnr_behind"] == pytest.approx(-9)  # for a fourth more than its budget


def test_a_summary_has_a_row_for_each_task_and_budget():
    def row(method, budget, evaluations, agreement, psnr, **more):
        shares = {"agreement_low": agreement - 0.1, "agreement_high": agreement + 0.02}
        return {"task": "half", "method": method, "setting": "searched", "budget": budget} | {
            "evaluations": evaluations,
            "agreement": agreement,
            "psnr": psnr,
            **shares,
            **more,
        }

    rows = [
        row("limit", "", "", 0.95, 20.0) | {"setting": "limit"},
        row("inexact Newton", 25, 25, 0.8, 18.0, psnr_behind_low=0.2, psnr_behind=0.5),
        row("gradient descent", 25, 25, 0.7, 18.5, agreement_behind_low=-0.1, agreement_behind=0.1),
        row("DPS", 25, 24, 0.85, 17.0),
        row("PiGDM", 25, 24, 0.8, 18.5),
        row("SITCOM", 25, 122, 0.99, 30.0),  # beyond its budget
        row("DPS", 25, 1000, 0.99, 30.0) | {"setting": "authors"},
        row("DPS", 50, 50, 0.9, 17.5),
    ]
    first, second = Summary()(rows)
    assert first == {
        "task": "half",
        "evaluations": 25,
        "limit": "95 % [85, 97], 20.0 dB",
        "inexact Newton": "80 % [70, 82], 18.0 dB; 0.5 dB behind",
        "gradient descent": "70 % [60, 72], 18.5 dB",
        "first of the others, agreement": "DPS 85 % [75, 87], 17.0 dB",
        "first of the others, psnr": "PiGDM 80 % [70, 82], 18.5 dB",
    }
    # the few digits on which it did not fail are drawn well
    failing = row("TDS", 25, 25, 0.1, 25.0, psnr_behind=12.0, agreement_behind=0.7)
    assert Summary()([*rows, failing])[0] == first
    assert (second["evaluations"], second.get("inexact Newton")) == (50, None)
