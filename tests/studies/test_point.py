"""J at a point that is kept."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import InputError, JacobianOperator, gmres, newton_direction
from mnist.evaluate import noisy_digit
from studies.explore.point import RCOND, Point, cosine, pseudo_inverse
from studies.frame.models import Model, open_model

from conftest import make_gaussian, relative


@pytest.fixture(scope="module")
def point():
    return Point(open_model("mnist", "cpu"), mnist.digits("held-out")[0][3], 500, seed=1, number=3)


@pytest.fixture(scope="module")
def gaussian():
    """A point of a Gaussian prior, n = 12, in float64, and its J, which is known."""
    from jacobian_lab import DiscreteSchedule

    oracle = make_gaussian(DiscreteSchedule.linear())
    model = Model(oracle.denoiser("v"), oracle.shape, "cpu", torch.float64)
    point = Point(model, oracle.sample(1, torch.Generator().manual_seed(2))[0], 400, 0)
    return point, oracle.jacobian(point.J.products.x, 400).reshape(12, 12).numpy()


def test_the_point_is_the_studies_noisy_digit(point):
    x_t = noisy_digit(point.model.denoiser, mnist.digits("held-out")[0][3], 500, 1, 3)
    assert np.array_equal(point.x_t, x_t.numpy().reshape(-1))
    with torch.no_grad():
        d = point.model.denoiser(point.J.products.x, 500)
    assert relative(point.d, d.reshape(-1)) < 1e-5


def test_an_entry_is_a_column_and_a_row_of_the_operator(point):
    J = JacobianOperator(point.model.denoiser, point.J.products.x, 500)
    e = np.zeros(1024, np.float32)
    e[300] = 1
    found = point.entry(300)
    assert np.array_equal(found.column, J @ e)
    assert np.array_equal(found.row, J.T @ e)
    assert found.diagonal == found.column[300] == pytest.approx(float(found.row[300]), rel=1e-3)
    assert 0 < found.asymmetry < 1
    assert found.cosine == pytest.approx(
        (4 - 4 * found.asymmetry**2)
        / (4 + 4 * found.asymmetry**2)
        * (np.sum(found.column**2) + np.sum(found.row**2))
        / (2 * np.linalg.norm(found.column) * np.linalg.norm(found.row)),
        rel=1e-4,
    )  # the law of cosines


def test_the_row_of_a_symmetric_jacobian_is_its_column(gaussian):
    point, A = gaussian
    for i in (0, 5, 11):
        found = point.entry(i)
        assert relative(found.column, A[:, i]) < 1e-12
        assert relative(found.row, A[i]) < 1e-12
        assert found.asymmetry < 1e-12
        assert found.cosine == pytest.approx(1)


def test_a_step_moves_an_affine_d_by_lambda_j_delta(gaussian):
    point, A = gaussian
    delta = np.linspace(-2, 1, 12)
    moved, none = point.moved([delta, np.zeros(12)], 0.5)
    assert none is None
    assert moved.step == pytest.approx(0.25)
    assert relative(moved.after - point.d, 0.25 * A @ delta) < 1e-8
    assert moved.largest == pytest.approx(abs(0.25 * A @ delta).max())


def test_the_ways_towards_a_wish_are_the_library_s_and_their_residuals_are_true(gaussian):
    point, A = gaussian
    e = np.cos(np.arange(12.0))
    ways = {way.kind: way for way in point.wish(e, 3, pseudo_inverse(A))}
    assert {*ways} == {"inexact", "gradient", "krylov", "exact"}
    for kind, way in ways.items():
        expected = newton_direction(A, e, kind, rcond=RCOND, steps=3)
        assert relative(way.delta, expected) < 1e-8
        size = np.linalg.norm(e)
        assert way.residual == pytest.approx(np.linalg.norm(e - A @ way.delta) / size)
        image = A @ way.delta
        best = np.linalg.lstsq(image[:, None], e, rcond=None)[0][0]
        assert way.best_step == pytest.approx(best)
        assert way.best_residual == pytest.approx(np.linalg.norm(e - best * image) / size)
        assert way.cosine == pytest.approx(cosine(image, e))
    assert ways["krylov"].residual == pytest.approx(gmres(A, e, 3).residual, rel=1e-6)


def test_without_the_dense_jacobian_there_is_no_exact_way(gaussian):
    assert "exact" not in {way.kind for way in gaussian[0].wish(np.ones(12), 2)}


def test_what_cannot_be_asked_is_refused(point):
    with pytest.raises(InputError, match="the wish is zero everywhere"):
        point.wish(np.zeros(1024, np.float32), 3)
    with pytest.raises(InputError, match="the entry must lie from 0 to 1023"):
        point.entry(1024)
    with pytest.raises(InputError, match="the seed must lie"):
        Point(point.model, point.clean, 500, -1)
