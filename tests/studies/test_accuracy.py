"""Rounding of the products, and of differences."""

import numpy as np


def test_differences_have_an_optimal_step_and_products_are_better(run, tiny):
    words = (*tiny(), "--times", "500", "--vectors", "2", "--pairs", "4")
    data, rows, _ = run("accuracy", *words)
    median = np.median(data["difference_error"][0], axis=2)
    assert data["product_error"].max() < 1e-6 < 0.02 < median[:, 0].min()  # h = 1e-6 is rounding
    assert data["dense_error"].max() < 1e-4
    assert data["product_error"].max() < median.min()
    marked = [row for row in rows if row["note"] == "optimum"]
    best = [float(row["h"]) for row in marked]
    np.testing.assert_allclose(best, data["h"][median.argmin(1)], rtol=1e-4)
    assert best[0] < best[1]  # the error of central differences is of second order
    assert data["adjointness"].max() < 1e-5
