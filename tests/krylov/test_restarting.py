"""Restarts keep `A Q_m = Q_{m+1} H_m` and its orthonormal basis."""

import numpy as np
import pytest

from jacobian_lab.krylov.restarting import RestartedArnoldi


def matrix(n=40, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n))


def holds(A, f):
    Q, H = f.basis, f.hessenberg
    assert np.linalg.norm(A @ Q[:, : f.steps] - Q @ H) < 1e-13 * max(np.linalg.norm(A), 1)
    assert np.linalg.norm(Q.T @ Q - np.eye(Q.shape[1])) < 1e-13


def test_a_factorisation_that_was_set_back_is_the_old_one():
    A = matrix(150)
    f = RestartedArnoldi(A).extend(20)
    kept = f.snapshot()
    f.restart(np.eye(20)[:, :5], f.projected[:5, :5], f.in_units[1][:, :5], np.ones((150, 1)))
    f.extend(3).resume(*kept)
    holds(A, f)
    assert np.linalg.norm(A @ f.exhaust().basis - f.basis @ f.projected) < 1e-11


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("kept", [1, 4, 9])
def test_a_restart_keeps_the_factorisation_and_goes_on(kept, block):
    A = matrix(60)
    A = A + A.T
    f = RestartedArnoldi(A, block=block).extend(12)
    values, Z = np.linalg.eigh((f.projected + f.projected.T) / 2)
    f.restart(Z[:, -kept:], np.diag(values[-kept:]), f.in_units[1] @ Z[:, -kept:])
    assert f.steps == kept
    holds(A, f)
    assert np.linalg.eigvalsh(f.projected)[-1] == pytest.approx(values[-1], rel=1e-12)
    f.extend(40)
    holds(A, f)
    assert f.products == 12 + 40


@pytest.mark.parametrize("steps", [6, 7, 8, 9])
def test_a_restart_at_the_end_of_the_space_fills_the_block_up(steps):
    A = matrix(9)
    A = A + A.T
    f = RestartedArnoldi(A, block=3).extend(steps)
    values, Z = np.linalg.eigh((f.projected + f.projected.T) / 2)
    f.restart(Z[:, :4], np.diag(values[:4]), f.in_units[1] @ Z[:, :4])
    holds(A, f)
    holds(A, f.extend(9))
    assert f.exhausted
