"""What J v in a loss costs a step of training."""

import math

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.benchmarks.training_products import ALONE, EXACT, TrainingBenchmark, compute, table


@pytest.mark.filterwarnings("default::FutureWarning")
def test_each_way_has_its_price_and_the_exact_ones_their_digits():
    rows = {row["way"]: row for row in table(compute(TrainingBenchmark(batch=1, rounds=1), None))}
    assert rows[ALONE]["steps_without_J_v"] == 1
    assert rows[EXACT]["error_of_J_v"] < 1e-5
    assert rows[EXACT]["error_of_gradient"] < 1e-4
    assert rows["torch.func.jvp, math kernel"]["error_of_gradient"] < 1e-4
    without = rows["J v without the weights' graph"]
    assert without["error_of_J_v"] < 1e-5
    assert math.isnan(without["error_of_gradient"])
    assert all(row["milliseconds"] > 0 for row in rows.values())


def test_prices_are_in_steps_without_the_product():
    arrays = {
        "way": np.array([EXACT, ALONE]),
        "seconds": np.array([0.6, 0.2]),
        "product_error": np.array([1e-6, np.nan]),
        "gradient_error": np.array([1e-5, np.nan]),
    }
    assert [row["steps_without_J_v"] for row in table(arrays)] == [pytest.approx(3), 1]


def test_an_empty_batch_is_refused():
    with pytest.raises(InputError, match="--batch must be at least 1"):
        TrainingBenchmark(batch=0)
