"""The eigenvectors of the symmetric part are the posterior's principal components."""

import numpy as np
import pytest

import mnist
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle

from conftest import call


def test_eigenvectors_are_the_principal_components_of_the_oracles_posterior(run):
    data, rows, _ = run(
        "eigenvectors", "--model", "oracle", "--digit", "3", "--time", "500", "--k", "3"
    )
    oracle, image = load_oracle(), mnist.digits("held-out")[0][3]
    x_t = noisy_digit(oracle, image, 500, 0, 3)
    covariance = oracle.double().network.oracle.covariance(x_t.double(), 500)[0].numpy()
    values, vectors = np.linalg.eigh(covariance)
    for k in range(3):
        assert float(rows[k]["posterior_standard_deviation"]) == pytest.approx(
            np.sqrt(values[-1 - k]), rel=1e-4
        )
        assert abs(data["vectors"][k] @ vectors[:, -1 - k]) > 1 - 1e-5
        assert float(rows[k]["cosine_of_left_and_right_vector_of_J"]) > 1 - 1e-5  # symmetric


@pytest.mark.slow
def test_it_takes_the_times_of_a_flow(run, flow, monkeypatch, capsys):
    data, rows, _ = run("eigenvectors", "--time", "0.5", "--k", "2", "--model", flow)
    assert rows
    assert data["time"].tolist() == 0.5
    status, _, err = call(monkeypatch, capsys, "eigenvectors", "--model", flow, "--time", "300.5")
    assert status == 2
    assert "a rectified flow takes a time in (0, 1]" in err
