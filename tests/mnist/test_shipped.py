"""What holds for the denoiser that ships, with its real weights."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

import mnist
from jacobian_lab import (
    Arnoldi,
    JacobianOperator,
    arnoldi,
    asymmetry,
    diagonal,
    eigenpairs,
    frobenius_norm,
    singular_values,
    skew_part,
    symmetric_part,
    trace,
)
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.krylov.operators import Operator
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seeded_noise
from jacobian_lab.sampling.step_size import Secant
from mnist.classifier import accuracy
from mnist.evaluate import ddim_samples, distances, health, squared_errors

from conftest import relative


@pytest.fixture(scope="module")
def at_500():
    """The operator at a noisy seven, and the dense J in float64."""
    denoiser = mnist.load_denoiser()
    x_t = denoiser.schedule.add_noise(
        mnist.digits("held-out")[0][7:8], 500, seeded_noise([0], denoiser.shape)
    )
    J = JacobianOperator(denoiser, x_t, 500)
    exact = JacobianOperator(mnist.load_denoiser(dtype=torch.float64), x_t.double(), 500)
    return J, exact.dense()


def test_float32_agrees_with_float64(at_500):
    J, double = at_500
    columns = J @ np.eye(1024, 64, dtype=np.float32)
    assert columns.dtype == np.float32
    assert double.dtype == np.float64
    assert relative(columns, double[:, :64]) < 1e-4
    V = np.random.default_rng(0).standard_normal((1024, 4))
    assert relative(J @ V, double @ V) < 1e-5
    assert relative(J.T @ V, double.T @ V) < 1e-5


def test_adjointness_over_100_pairs(at_500):
    J = at_500[0]
    U, V = np.random.default_rng(0).standard_normal((2, 1024, 100))
    JU, JtV = J @ U, J.T @ V
    size = np.linalg.norm(JU, axis=0) * np.linalg.norm(V, axis=0)
    error = np.abs((JU * V).sum(0) - (U * JtV).sum(0))
    assert (error < 1e-6 * size).all()
    assert np.median(error / np.abs((JU * V).sum(0))) < 1e-5


def test_scipys_solvers_run_on_the_operator_unchanged(at_500):
    J, double = at_500
    values = scipy.sparse.linalg.eigs(J, k=4, return_eigenvectors=False)
    exact = np.linalg.eigvals(double)
    for value in values:
        assert np.abs(exact - value).min() < 1e-4 * abs(value)
    assert abs(values).max() == pytest.approx(abs(exact).max(), rel=1e-4)
    singular = scipy.sparse.linalg.svds(J, k=3, return_singular_vectors=False)
    np.testing.assert_allclose(
        sorted(singular)[::-1], np.linalg.svd(double, compute_uv=False)[:3], rtol=1e-4
    )
    largest = scipy.sparse.linalg.eigsh(
        symmetric_part(J), k=1, which="LA", return_eigenvectors=False
    )
    assert largest[0] == pytest.approx(np.linalg.eigvalsh((double + double.T) / 2)[-1], rel=1e-4)
    b = double @ np.random.default_rng(1).standard_normal(1024)
    x, _, steps, *_ = scipy.sparse.linalg.lsmr(J, b, maxiter=40)
    assert steps > 1
    assert relative(double @ x, b) < 0.1


def test_eigenpairs_keep_their_word(at_500):
    J, double = at_500
    for A, B, symmetric in (
        (J, double, False),
        (symmetric_part(J), (double + double.T) / 2, True),
        (skew_part(J), (double - double.T) / 2, False),
    ):
        result, true = eigenpairs(A, 6, symmetric=symmetric), np.linalg.eigvals(B)
        assert result.converged
        assert "noise floor" in result.message
        assert (
            np.array([abs(true - value).min() for value in result.values]) <= result.errors
        ).all()
        assert result.errors.max() < 1e-3 * abs(true).max()  # and it is worth something
        residuals = np.linalg.norm(B @ result.vectors - result.vectors * result.values, axis=0)
        assert (np.abs(residuals - result.residuals) <= result.noise).all()
    values = singular_values(J, 4)
    assert values.converged
    assert (
        np.abs(values.values - np.linalg.svd(double, compute_uv=False)[:4]) <= values.errors
    ).all()


def test_thirty_arnoldi_steps_interrupted_and_resumed_are_the_same_to_the_last_bit(
    at_500, tmp_path
):
    J = at_500[0]
    calls = []

    def failing(V):
        calls.append(0)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return J @ V

    whole = arnoldi(J, 30)
    f = Arnoldi(Operator(J.shape, J.dtype, failing, lambda U: J.T @ U))
    with pytest.raises(KeyboardInterrupt):
        f.extend(30)
    assert f.steps == 17
    f.save(tmp_path / "run.npz")
    resumed = Arnoldi.load(tmp_path / "run.npz", J).extend(13)
    assert np.array_equal(resumed.hessenberg, whole.hessenberg)
    assert np.array_equal(resumed.basis, whole.basis)


@pytest.mark.parametrize("estimator", [trace, frobenius_norm, asymmetry, diagonal])
def test_intervals_cover_the_dense_truth_of_the_shipped_model(at_500, estimator):
    A = at_500[1]
    truth = {
        trace: np.trace,
        frobenius_norm: np.linalg.norm,
        diagonal: np.diag,
        asymmetry: lambda A: np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T),
    }[estimator](A)
    covered = [
        (low <= truth) & (truth <= high)
        for low, high in (estimator(A, seed=s).interval() for s in range(200))
    ]
    assert 0.9 <= np.mean(covered) <= 0.99


def test_the_posterior_mean_is_that_of_a_trained_network():
    """Health in coarse bounds, which an untrained or a damaged network fails; the card has the
    figures.
    """
    denoiser = mnist.load_denoiser()
    images = mnist.digits("held-out")[0][:100]
    for t, bound in ((100, 0.01), (500, 0.15)):
        assert squared_errors(denoiser, images, t, seed=0).mean() < bound
    x_t = denoiser.schedule.add_noise(images[3], 500, seeded_noise([0], denoiser.shape)[0])
    found = health(denoiser, x_t, 500)
    assert found.trace > 0
    assert found.asymmetry < 0.5
    assert found.largest > -2 * found.smallest


@pytest.mark.parametrize("name", ["denoiser", pytest.param("flow", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_a_constrained_sample_is_the_same_alone_and_in_a_batch_of_16(name, dtype, bound):
    """To rounding: a forward difference in float32 makes it a thousand times larger, and the next
    steps larger again.
    """
    denoiser = mnist.load_denoiser(name, dtype=dtype)
    images = mnist.digits("held-out")[0][:16].to(dtype)
    noise = seeded_noise(range(16), denoiser.shape, dtype=dtype)
    times, newton = denoiser.schedule.times(4), Newton("inexact", 2, Secant(0.2))
    *_, all_16 = sample(
        denoiser,
        noise,
        times,
        Inpainting(images, half(denoiser.shape)),
        newton,
        eta=1,
        seeds=range(16),
    )
    *_, alone = sample(
        denoiser,
        noise[5:6],
        times,
        Inpainting(images[5:6], half(denoiser.shape)),
        newton,
        eta=1,
        seeds=[5],
    )
    assert relative(alone.x0[0], all_16.x0[5]) < bound


@pytest.mark.parametrize("name", ["denoiser", pytest.param("flow", marks=pytest.mark.slow)])
def test_samples_look_like_digits_to_the_judge(name):
    denoiser, classifier = mnist.load_denoiser(name), mnist.load_classifier()
    images, labels = mnist.digits("held-out")
    assert accuracy(classifier, images[:500], labels[:500]) > 0.99
    samples = ddim_samples(denoiser, range(64), steps=20)
    assert (
        torch.equal(samples[3:4], ddim_samples(denoiser, [3], steps=20))
        or relative(samples[3:4], ddim_samples(denoiser, [3], 20)) < 1e-3
    )
    with torch.no_grad():
        confidence, label = torch.softmax(classifier(samples), dim=1).max(dim=1)
    assert confidence.mean() > 0.75
    assert len(label.unique()) >= 7
    sampled, real, noise = (
        distances(classifier, x, images[64:128])["frechet"]
        for x in (samples, images[:64], torch.randn(64, 1, 32, 32).clamp(-1, 1))
    )
    # 0.54, 1.8 and 47 when this was written: 64 samples resolve no more
    assert real < sampled < noise / 10
