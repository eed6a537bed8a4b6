"""A file of a factorisation is told from that of another operator."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator

from jacobian_lab import InputError, JacobianOperator
from jacobian_lab._files import load_arrays, save_arrays
from jacobian_lab.krylov.factorisation import Arnoldi, arnoldi
from jacobian_lab.krylov.operators import Operator

import networks


def matrix(n=40, seed=0):
    return np.random.default_rng(seed).standard_normal((n, n))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fingerprint_tells_operators_of_one_size_apart(tmp_path, dtype):
    A = matrix().astype(dtype)
    f = arnoldi(Operator(A.shape, dtype, lambda V: A @ V.astype(dtype), lambda U: A.T @ U), 8)
    f.save(tmp_path / "a.npz")
    assert f.products == 9  # the probe is one
    # two are the comparison
    assert Arnoldi.load(tmp_path / "a.npz", f.operator.operator).products == 11
    small = np.zeros_like(A)
    small[3, 5] = 0.1
    outside = (np.eye(40) - f.basis[:, :8] @ f.basis[:, :8].T).astype(dtype)
    for other in (
        A.T,
        2 * A,
        -A,
        np.roll(A, 1, 0),
        A + small,
        np.zeros_like(A),
        A + outside,
        A + 1e-3 * outside,
        A * dtype(1.001),
        A[::-1],
        A[:, ::-1],
    ):
        with pytest.raises(
            InputError, match=r"belongs to another operator: a product differs .* start anew"
        ):
            Arnoldi.load(tmp_path / "a.npz", other)
    # refused as a matrix, before it is compared
    with pytest.raises(InputError, match="not finite"):
        Arnoldi.load(tmp_path / "a.npz", np.nan * A)
    for steps in (0, 1, 40):
        arnoldi(A, steps).save(tmp_path / "a.npz")
        assert Arnoldi.load(tmp_path / "a.npz", A).steps == steps
        with pytest.raises(InputError, match=r"belongs to another operator"):
            Arnoldi.load(tmp_path / "a.npz", A.T)
    zero = np.zeros_like(A)
    arnoldi(zero, 3).save(tmp_path / "a.npz")
    assert Arnoldi.load(tmp_path / "a.npz", zero).steps == 3
    with pytest.raises(InputError, match=r"belongs to another operator"):
        Arnoldi.load(tmp_path / "a.npz", A)


@pytest.mark.parametrize("products", ["exact", "central", "forward"])
def test_a_fingerprint_tells_times_and_samples_apart_even_where_products_are_differences(
    tmp_path, products
):
    denoiser = networks.denoiser(dtype=torch.float32)
    x_t = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(0))

    def at(x, t):
        return JacobianOperator(denoiser, x, t, products=products)

    arnoldi(at(x_t, 500), 3).save(tmp_path / "a.npz")
    assert Arnoldi.load(tmp_path / "a.npz", at(x_t, 500)).steps == 3
    for x, t in ((x_t, 501), (x_t, 400), (x_t + 1e-2, 500), (x_t.flip(-1), 500), (-x_t, 500)):
        with pytest.raises(InputError, match=r"belongs to another operator"):
            Arnoldi.load(tmp_path / "a.npz", at(x, t))


def test_a_file_of_another_operator_is_refused(tmp_path):
    arnoldi(matrix(), 3).save(tmp_path / "a.npz")
    with pytest.raises(InputError, match="operator of size 40: got one of size 41"):
        Arnoldi.load(tmp_path / "a.npz", aslinearoperator(matrix(41)))
    with pytest.raises(InputError, match="expected a LinearOperator or a numpy matrix: got list"):
        Arnoldi.load(tmp_path / "a.npz", matrix().tolist())
    (tmp_path / "b.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged, or this version did not write it"):
        Arnoldi.load(tmp_path / "b.npz", matrix())


def test_a_file_from_before_blocks_is_read_and_one_with_an_impossible_block_is_refused(tmp_path):
    A = matrix()
    whole = arnoldi(A, 9)
    whole.save(tmp_path / "a.npz")
    data = load_arrays(tmp_path / "a.npz", "")
    for block in (None, 0, -3, 41, 2.0, [1, 1]):
        changed = {key: value for key, value in data.items() if key != "block"}
        if block is not None:
            changed["block"] = np.array(block)
        save_arrays(tmp_path / "b.npz", changed, compressed=False)
        if block is None:
            loaded = Arnoldi.load(tmp_path / "b.npz", A)
            assert np.array_equal(loaded.hessenberg, whole.hessenberg)
            continue
        with pytest.raises(InputError, match="is not the file of an Arnoldi factorisation"):
            Arnoldi.load(tmp_path / "b.npz", A)
