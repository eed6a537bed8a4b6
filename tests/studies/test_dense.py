"""The price of the dense Jacobian, as the table states it."""

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.benchmarks.dense import FORWARD, DenseBenchmark, dense_ways, table


def test_the_table_is_in_units_of_the_forward_passes():
    rows = table(
        {
            "way": np.array([FORWARD, "ours"]),
            "seconds": np.array([2.0, 3.0]),
            "peak": np.array([100, 200]),
        }
    )
    assert [row["forward_passes_of_1024"] for row in rows] == [1.0, 1.5]
    assert [row["peak_MB_of_its_process"] for row in rows] == [100.0, 200.0]


def test_ours_and_pytorchs_ways_are_measured():
    ways = dense_ways(500)
    assert next(iter(ways)) == FORWARD
    assert {"J.dense(), set-up included", "torch.func.jacfwd"} <= set(ways)


def test_at_least_one_round_is_asked():
    with pytest.raises(InputError, match="--rounds must be at least 1"):
        DenseBenchmark(rounds=0)
