"""Each study of the spectrum and of symmetry finds what dense linear algebra finds, on a small
network and on the oracle.
"""

import numpy as np
import pytest

import mnist
from mnist.evaluate import noisy_digit
from mnist.oracle import load_oracle

import networks
from conftest import call, relative


def dense(denoiser, digit, t, seed=0):
    """J in float64 by torch.func.jacrev."""
    image = mnist.digits("held-out")[0][digit].double()
    return networks.truth(
        denoiser.double(), noisy_digit(denoiser.double(), image, t, seed, digit), t
    ).numpy()


def test_eigenvalues(run, model):
    data, rows, _ = run(
        "eigenvalues", "--model", model, "--digits", "1", "--seeds", "2", "--times", "300", "900"
    )
    assert data["largest"].shape == (2, 2, 3)
    for k, t in enumerate((300, 900)):
        A = dense(mnist.load_denoiser(model), 0, t, seed=1)
        expected = [abs(np.linalg.eigvals(B)).max() for B in (A, (A + A.T) / 2, (A - A.T) / 2)]
        assert (np.abs(data["largest"][k, 1] - expected) <= data["error"][k, 1]).all()
    np.testing.assert_allclose(data["truth"], data["largest"][:, 0], rtol=1e-4)
    published = {
        (row["time"], row["operator"]): row["stable_diffusion_1.5_published"] for row in rows
    }
    assert published["900", "J"] == "16.85"
    assert published["300", "skew"] == "1.22"


def test_spectrum(run, model):
    data, rows, _ = run(
        "spectrum", "--model", model, "--digit", "2", "--time", "700", "--steps", "12"
    )
    values = np.linalg.eigvals(dense(mnist.load_denoiser(model), 2, 700))
    assert relative(np.sort(abs(data["eigenvalues"])), np.sort(abs(values))) < 1e-10
    assert data["ritz"].shape == (12, 12)
    assert np.isnan(data["bounds"][np.triu_indices(12, 1)]).all()
    left, right, height = data["box"]
    inner = data["inner_box"]
    assert left - 1e-12 <= inner[0] <= inner[1] <= right + 1e-12
    assert inner[2] <= height + 1e-12
    A = dense(mnist.load_denoiser(model), 2, 700)
    for i, j in ((0, 0), (30, 40), (45, 20)):  # an upper bound of the smallest singular value
        z = data["grid_x"][j] + 1j * data["grid_y"][i]
        assert (
            data["smallest"][i, j]
            >= np.linalg.svd(z * np.eye(1024) - A, compute_uv=False)[-1] - 1e-10
        )
    assert left <= values.real.min()
    assert values.real.max() <= right
    assert abs(values.imag).max() <= height
    ritz = data["ritz"][np.tril_indices(12)]
    assert ((left <= ritz.real) & (ritz.real <= right) & (abs(ritz.imag) <= height)).all()
    figures = {row["quantity"]: row["real"] for row in rows}
    assert float(figures["trace"]) == pytest.approx(values.sum().real, rel=1e-4)
    assert float(figures["largest_eigenvalue"]) == pytest.approx(abs(values).max(), rel=1e-5)


def test_eigenvectors_are_the_principal_components_of_the_oracles_posterior(run):
    data, rows, _ = run(
        "eigenvectors", "--model", "oracle", "--digit", "3", "--time", "500", "--count", "3"
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


def test_symmetry(run, model):
    data, rows, _ = run(
        "symmetry",
        "--model",
        model,
        "--digits",
        "2",
        "--times",
        "200",
        "600",
        "--shown",
        "600",
        "--pixel",
        "3",
        "9",
    )
    A = dense(mnist.load_denoiser(model), 0, 600)
    truth = np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T)
    assert data["truth"][1] == pytest.approx(truth, rel=1e-4)
    low, high = data["interval"][1, 0]
    assert low - 0.2 * (high - low) < truth < high + 0.2 * (high - low)
    assert relative(data["column"][0].reshape(-1), A[:, 3 * 32 + 9]) < 1e-4
    assert relative(data["row"][0].reshape(-1), A[3 * 32 + 9]) < 1e-4
    assert relative(data["skew"][0].reshape(-1), np.linalg.norm((A - A.T) / 2, axis=1)) < 1e-4
    assert relative(data["symmetric"][0].reshape(-1), np.linalg.norm((A + A.T) / 2, axis=1)) < 1e-4
    assert sum(row["quantity"] == "asymmetry" for row in rows) == 4


@pytest.mark.parametrize(
    "words",
    [
        ("eigenvalues", "--digits", "1", "--seeds", "1", "--times", "500"),
        ("spectrum", "--steps", "10"),
        ("symmetry", "--digits", "1", "--times", "500", "--shown", "500"),
    ],
)
def test_each_study_runs_on_the_oracle(run, words):
    data, rows, _ = run(*words, "--model", "oracle")
    assert rows
    if words[0] == "symmetry":
        assert data["value"].max() < 1e-4
    elif words[0] == "eigenvalues":
        assert data["largest"][0, 0, 2] < 1e-4 * data["largest"][0, 0, 0]
    else:
        assert abs(data["eigenvalues"].imag).max() < 1e-6


@pytest.mark.parametrize(
    "words",
    [
        ("eigenvalues", "--digits", "1", "--seeds", "1", "--times", "0.5", "1"),
        ("spectrum", "--steps", "10", "--time", "0.5"),
        ("symmetry", "--digits", "1", "--times", "0.5", "--shown", "0.5"),
        ("eigenvectors", "--time", "0.5", "--count", "2"),
        (
            "evaluate",
            "--times",
            "0.3",
            "--images",
            "20",
            "--jacobians",
            "1",
            "--samples",
            "64",
            "--steps",
            "2",
        ),
    ],
)
def test_each_study_takes_the_times_of_a_flow(run, flow, monkeypatch, capsys, words):
    data, rows, _ = run(*words, "--model", flow)
    assert rows
    assert data["times" if words[0] in ("eigenvalues", "symmetry", "evaluate") else "time"].flat[
        0
    ] in (0.3, 0.5)
    status, _, err = call(monkeypatch, capsys, words[0], "--model", flow)
    assert status == 2
    assert "a rectified flow takes a time in (0, 1]" in err


def test_the_audit_prints_a_table_and_its_verdict_is_the_exit_status(monkeypatch, capsys, model):
    status, out, _ = call(monkeypatch, capsys, "audit", "--times", "500")
    assert status == 0
    assert "adjoint" in out
    assert "all checks pass" in out
    monkeypatch.setattr(
        mnist, "load_denoiser", lambda *_: networks.coarse(mnist.weights.load_denoiser(model))
    )
    status, out, _ = call(monkeypatch, capsys, "audit", "--times", "500")
    assert status == 1
    assert "FAIL" in out
    assert "some checks fail" in out


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ("products", "--batches", "1", "--rounds", "1"),
            ["J v, torch.func.jvp", "set-up, once for x_t"],
        ),
        (
            (
                "eigenpairs",
                "--k",
                "2",
                "--digits",
                "1",
                "--times",
                "500",
                "--rtol",
                "1e-3",
                "--dtype",
                "float32",
            ),
            [
                "errors as stated, residuals as recomputed with the dense J",
                "ARPACK on torch.func.jvp, vjp",
            ],
        ),
    ],
)
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
def test_benchmarks_print_their_tables(monkeypatch, capsys, words, lines):
    status, out, _ = call(monkeypatch, capsys, "benchmark", *words)
    assert status == 0
    for line in lines:
        assert line in out
