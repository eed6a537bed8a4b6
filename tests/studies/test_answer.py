import math

import numpy as np
import scipy.stats

from studies.frame.answer import MOST, Answer, averaged, markdown_table, terminal_table

ROWS = [
    {"time": t, "digit": d, "quantity": q, "value": 10.0 * t + d, "converged": 1}
    for t in (1, 2)
    for d in range(4)
    for q in ("a", "b")
]


def test_rows_and_columns_are_selected_in_the_order_asked_for():
    found = Answer(("value", "digit"), lambda r: (r["quantity"], r["time"]) == ("b", 2))(ROWS)
    assert found == [{"value": 20.0 + d, "digit": d} for d in range(4)]
    assert Answer()(ROWS) == ROWS


def test_numbers_are_averaged_with_students_interval():
    found = Answer(keeps=lambda r: r["quantity"] == "a", over=("digit",))(ROWS)
    assert [(row["time"], row["value"]) for row in found] == [(1, 11.5), (2, 21.5)]
    assert "digit" not in found[0]
    low, high = scipy.stats.t.interval(0.95, 3, 11.5, np.std(range(4), ddof=1) / 2)
    assert math.isclose(found[0]["low"], low)
    assert math.isclose(found[0]["high"], high)


def test_settings_that_are_numbers_are_not_averaged_and_intervals_follow_their_column():
    rows = [
        {"c": c, "digit": d, "value": c + d, "low": 0.0, "high": 9.0}
        for c in (0.5, 2.5)
        for d in (0, 1)
    ]
    found = Answer(("c", "value"), over=("digit",), by=("c",))(rows)
    assert [(row["c"], row["value"]) for row in found] == [(0.5, 1.0), (2.5, 3.0)]
    assert terminal_table(Answer(("value",))(rows[:1])).split("\n") == ["value", "0.5 [0, 9]"]


def test_one_value_has_no_interval_and_what_is_missing_counts_for_nothing():
    rows = [{"digit": 0, "x": 1.0, "y": ""}, {"digit": 1, "x": 3.0, "y": 2.0}]
    (found,) = averaged(rows, ("digit",))
    assert found["x"] == found["y"] == 2.0
    assert "x_low" in found
    assert "y_low" not in found
    (none,) = averaged([{"digit": 0, "x": ""}, {"digit": 1, "x": ""}], ("digit",))
    assert none == {"x": ""}


def test_a_terminal_shows_aligned_columns_with_intervals_beside_the_numbers():
    rows = [
        {"time": 500, "largest": 3.46789, "largest_low": 3.0, "largest_high": 4.0, "none": ""},
        {"time": 7, "largest": float("nan"), "largest_low": 1.0, "largest_high": 2.0, "none": ""},
    ]
    assert terminal_table(rows).split("\n") == ["time  largest", "500   3.47 [3, 4]", "7"]
    assert markdown_table(rows).split("\n")[1:] == [
        "| --- | --- |",
        "| 500 | 3.47 [3, 4] |",
        "| 7 |  |",
    ]


def test_a_long_table_ends_with_a_screen_and_says_where_the_rest_is():
    text = terminal_table([{"i": i} for i in range(MOST + 3)])
    assert text.endswith("\n39\n... and 3 rows more in table.csv")
    assert "40" not in terminal_table([{"i": i} for i in range(MOST)])


def test_the_entries_of_a_column_become_columns_with_their_intervals():
    rows = [
        {"time": t, "part": part, "value": 1.0 * t + k, "low": 0.5, "high": 9.0, "note": "no"}
        for t in (1, 2)
        for k, part in enumerate(("J", "skew"))
    ][:3]
    found = Answer(("time", "part", "value"), across="part")(rows)
    assert found == [
        {
            "time": 1,
            **{"J": 1.0, "J_low": 0.5, "J_high": 9.0},
            **{"skew": 2.0, "skew_low": 0.5, "skew_high": 9.0},
        },
        {"time": 2, "J": 2.0, "J_low": 0.5, "J_high": 9.0},
    ]
    lines = terminal_table(found).split("\n")
    assert lines[0].split() == ["time", "J", "skew"]
    assert lines[2].split() == ["2", "2", "[0.5,", "9]"]


def test_averages_go_across_with_their_own_intervals():
    found = Answer(("quantity", "value"), over=("digit",), across="quantity")(ROWS[:8])
    assert len(found) == 1
    assert set(found[0]) == {f"{q}{end}" for q in ("a", "b") for end in ("", "_low", "_high")}
    assert found[0]["a_low"] < found[0]["a"] == 11.5 < found[0]["a_high"]


def test_bars_in_a_cell_do_not_end_it_and_large_numbers_are_written_out():
    assert markdown_table([{"|x|": "a|b", "n": 12345.6, "m": 1e7}]).split("\n") == [
        r"| \|x\| | n | m |",
        "| --- | --- | --- |",
        r"| a\|b | 12346 | 1e+07 |",
    ]


def test_a_time_is_no_number_to_average_and_seeds_of_a_digit_count_once():
    rows = [
        {"time": t, "digit": float(d), "value": t + d + s}
        for t in (0.3, 0.7)
        for d in (2, 4)
        for s in (0.0, 1.0)
    ]
    found = Answer(("time", "value"), over=("digit",))(rows)
    assert [row["time"] for row in found] == [0.3, 0.7]
    assert "digit" not in found[0]
    low, high = scipy.stats.t.interval(0.95, 1, 3.8, 1.0)  # of 2.8 and 4.8
    assert math.isclose(found[0]["value"], 3.8)
    assert math.isclose(found[0]["low"], low)
    assert math.isclose(found[0]["high"], high)
