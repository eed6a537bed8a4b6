"""The eigenvectors of the symmetric part are the posterior's principal components."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import Denoiser, JacobianOperator
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle
from studies.jacobian.eigenvectors import Z, densities, leading_pairs

import tiny_model
from conftest import SCHEDULES, call, make_gaussian


@pytest.mark.slow
def test_eigenvectors_are_the_principal_components_of_the_oracles_posterior(run):
    data, rows, _ = run(
        "eigenvectors", "--model", "oracle", "--digit", "3", "--time", "500", "--k", "2"
    )
    oracle, image = load_oracle(), mnist.digits("held-out")[0][3]
    x_t = noisy_digit(oracle, image, 500, 0, 3)
    covariance = oracle.double().network.oracle.covariance(x_t.double(), 500)[0].numpy()
    values, vectors = np.linalg.eigh(covariance)
    for k in range(2):
        assert float(rows[k]["posterior_standard_deviation"]) == pytest.approx(
            np.sqrt(values[-1 - k]), rel=1e-4
        )
        assert abs(data["vectors"][k] @ vectors[:, -1 - k]) > 1 - 1e-5
        assert float(rows[k]["cosine_of_left_and_right_vector_of_J"]) > 1 - 1e-5  # symmetric


def test_more_than_half_of_the_components_of_a_small_model_are_found():
    x_t = torch.from_numpy(tiny_model.images())
    J = JacobianOperator(tiny_model.make().eval(), x_t, 500)
    found, dense = leading_pairs(J, 40), J.dense().astype(np.float64)
    truth = np.linalg.eigvalsh((dense + dense.T) / 2)[::-1][:40]
    np.testing.assert_allclose(found["values"], truth, atol=1e-5 * truth[0])


def test_a_gaussian_posterior_has_the_gaussian_density_along_every_vector():
    schedule, t = SCHEDULES["linear"]
    oracle = make_gaussian(schedule)
    x_t = oracle.means.reshape(1, *oracle.shape)
    found = densities(oracle.denoiser(), x_t, t, np.eye(12)[:2])
    gauss = np.exp(-(Z**2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(found["density"], [gauss, gauss], atol=1e-5)
    assert (np.abs(found["excess_kurtosis"]) <= found["kurtosis_error"]).all()


def test_a_network_that_is_no_posterior_mean_has_no_density():
    schedule, t = SCHEDULES["linear"]
    falling = Denoiser(lambda x, _: -x, schedule, "sample", (1, 3, 4))
    found = densities(falling, torch.ones(1, 1, 3, 4), t, np.eye(12)[:1])
    assert all(np.isnan(values).all() for values in found.values())


@pytest.mark.slow
def test_it_takes_the_times_of_a_flow(run, flow, monkeypatch, capsys):
    data, rows, _ = run("eigenvectors", "--time", "0.5", "--k", "2", "--model", flow)
    assert rows
    assert data["time"].tolist() == 0.5
    status, _, err = call(monkeypatch, capsys, "eigenvectors", "--model", flow, "--time", "300.5")
    assert status == 2
    assert "a rectified flow takes a time in (0, 1]" in err
