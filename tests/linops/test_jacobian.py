import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    InputError,
    JacobianOperator,
    asymmetry,
    frobenius_norm,
    newton_direction,
    posterior_covariance,
    restriction,
    seeded_noise,
    singular_values,
    skew_part,
    symmetric_part,
    trace,
)
from jacobian_lab.krylov.operators import Operator

import networks
from conftest import PREDICTIONS, SCHEDULES, make_mixture, relative


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_products_agree_with_the_closed_form(oracle_at, prediction):
    oracle, x_t, t = oracle_at
    truth = oracle.jacobian(x_t, t)[0].numpy()
    J = JacobianOperator(oracle.denoiser(prediction), x_t, t)
    V = np.random.default_rng(0).standard_normal((12, 5))
    assert J.dtype == np.float64
    assert relative(J @ V, truth @ V) < 1e-10
    assert relative(J.T @ V, truth.T @ V) < 1e-10
    assert relative(J @ V[:, 0], truth @ V[:, 0]) < 1e-10
    assert relative(J.T @ V[:, 0], truth.T @ V[:, 0]) < 1e-10
    assert relative(J.dense(), truth) < 1e-10


def test_the_oracles_jacobian_is_symmetric_to_rounding(oracle_at):
    oracle, x_t, t = oracle_at
    J = JacobianOperator(oracle.denoiser("v"), x_t, t)
    e = np.random.default_rng(0).standard_normal(12)
    dense = J.dense()
    assert np.linalg.norm(dense - dense.T) < 1e-11 * np.linalg.norm(dense)
    assert relative(J @ e, J.T @ e) < 1e-11
    assert np.linalg.norm(skew_part(J) @ e) < 1e-11 * np.linalg.norm(J @ e)
    assert relative(symmetric_part(J) @ e, J @ e) < 1e-11


@pytest.mark.parametrize("t", [700, 900, 999])
def test_error_bars_hold_the_rounding_where_the_two_parts_of_d_cancel(t):
    # J = (I - sigma F') / alpha, whose parts are thousands of times as large as J
    x_t = seeded_noise([0], (1, 3, 4))
    truth = make_mixture(SCHEDULES["linear"][0]).jacobian(x_t.double(), t)[0]
    J = JacobianOperator(make_mixture(SCHEDULES["linear"][0]).float().denoiser("epsilon"), x_t, t)
    estimate = trace(J)
    assert abs(estimate.value - float(truth.trace())) <= 3 * estimate.standard_error
    estimate = asymmetry(J)
    assert estimate.value <= 3 * estimate.standard_error <= 0.01


@pytest.mark.parametrize("t", [100, 500])
def test_a_skew_part_that_is_rounding_has_no_small_error(t):
    oracle = make_mixture(SCHEDULES["linear"][0]).float()
    K = skew_part(JacobianOperator(oracle.denoiser("v"), seeded_noise([0], (1, 3, 4)), t))
    estimate = frobenius_norm(K)
    assert 0 < estimate.value <= 3 * estimate.standard_error <= 1e-4
    found = singular_values(K, 2)
    assert (found.values <= found.errors).all()


def test_posterior_covariance_is_the_oracles(oracle_at):
    oracle, x_t, t = oracle_at
    covariance = posterior_covariance(JacobianOperator(oracle.denoiser("v"), x_t, t))
    assert relative(covariance @ np.eye(12), oracle.covariance(x_t, t)[0]) < 1e-10
    assert relative(covariance.T @ np.eye(12), oracle.covariance(x_t, t)[0]) < 1e-10


@pytest.fixture(scope="module", params=["v", "flow", "unet"])
def network_at(request):
    """A nonsymmetric random network, a point, a time, and the true Jacobian."""
    denoiser = (
        networks.unet()
        if request.param == "unet"
        else networks.denoiser(request.param, flow=request.param == "flow")
    )
    t = 0.3 if request.param == "flow" else 300
    x_t = torch.randn(
        1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    return denoiser, x_t, t, networks.truth(denoiser, x_t, t).numpy()


def test_every_way_to_write_a_product_agrees_with_the_dense_truth(network_at):
    denoiser, x_t, t, truth = network_at
    J = JacobianOperator(denoiser, x_t, t)
    rng = np.random.default_rng(0)
    v, V, Z = (
        rng.standard_normal(64),
        rng.standard_normal((64, 3)),
        rng.standard_normal((64, 2)) @ [[1, 1j], [1j, 2]],
    )
    assert relative(truth.T, truth) > 0.1  # else a transpose forgotten would not show
    S, K = (truth + truth.T) / 2, (truth - truth.T) / 2
    cases = [
        (J, truth),
        (J.T, truth.T),
        (J.H, truth.T),
        (J.T.T, truth),
        (2 * J, 2 * truth),
        (-J, -truth),
        (J + J.T, 2 * S),
        (J - J.T, 2 * K),
        (J @ J, truth @ truth),
        (J.T @ J, truth.T @ truth),
        (J**2, truth @ truth),
        ((J @ J.T).T, truth @ truth.T),
        (symmetric_part(J), S),
        (skew_part(J), K),
        (skew_part(J).T, K.T),
        (symmetric_part(J).H, S),
    ]
    for operator, matrix in cases:
        for x in (v, v[:, None], V, Z):
            assert (operator @ x).shape == x.shape
            assert relative(operator @ x, matrix @ x) < 1e-10
    assert relative(v @ J, v @ truth) < 1e-10
    assert relative(J.dense(), truth) < 1e-10
    for memory in (1, 2**20):  # one row at a time, several
        assert relative(JacobianOperator(denoiser, x_t, t, memory=memory).dense(), truth) < 1e-10


def test_products_do_not_run_the_network_again(network_at):
    denoiser, x_t, t, _ = network_at
    J = JacobianOperator(denoiser, x_t, t)
    calls = []
    handle = denoiser.network.register_forward_hook(
        lambda module, args, output: calls.append(len(args[0]))
    )
    V = np.random.default_rng(0).standard_normal((64, 7))
    for operator in (J, J.T, symmetric_part(J)):
        operator @ V
    assert calls == []  # the network ran once, when it was recorded
    handle.remove()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), t=st.integers(0, 999))
def test_adjointness_and_linearity(seed, t):
    rng = np.random.default_rng(seed)
    J = JacobianOperator(networks.denoiser(), torch.from_numpy(rng.standard_normal((1, 8, 8))), t)
    u, v, w = rng.standard_normal((3, 64))
    scale = np.linalg.norm(J @ v) * np.linalg.norm(u)
    assert abs(u @ (J @ v) - v @ (J.T @ u)) < 1e-12 * scale
    assert relative(J @ (2 * v - 3 * w), 2 * (J @ v) - 3 * (J @ w)) < 1e-10


@pytest.mark.parametrize(("method", "tolerance"), [("forward", 1e-6), ("central", 1e-8)])
def test_finite_differences_come_close_and_scale_with_v(network_at, method, tolerance):
    denoiser, x_t, t, truth = network_at
    J = JacobianOperator(denoiser, x_t, t, products=method)
    V = np.random.default_rng(0).standard_normal((64, 3)) * [1e-6, 1, 1e6]
    for k in range(3):
        assert relative((J @ V)[:, k], truth @ V[:, k]) < tolerance
    assert not (J @ np.zeros(64)).any()
    assert relative(J.dense(), truth) < tolerance
    assert relative(J.T @ V, truth.T @ V) < 1e-10


def test_float32_networks_give_float32_and_scipy_runs_on_them():
    denoiser = networks.unet(torch.float32)
    x_t = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    J = JacobianOperator(denoiser, x_t, 300)
    truth = networks.truth(denoiser.double(), x_t.double(), 300).numpy()
    J = JacobianOperator(denoiser.float(), x_t, 300)
    assert J.dtype == np.float32
    assert (J @ np.ones(64, dtype=np.float32)).dtype == np.float32
    # as numpy promotes, so a float64 Krylov basis stays one
    assert (J @ np.ones(64)).dtype == np.float64
    assert relative(J.dense(), truth) < 1e-5
    # with both of the pair that ends the five
    values = scipy.sparse.linalg.eigs(J, k=5, return_eigenvectors=False)
    exact = np.linalg.eigvals(truth)
    np.testing.assert_allclose(sorted(abs(values)), sorted(abs(exact))[-5:], rtol=1e-4)
    np.testing.assert_allclose(
        sorted(scipy.sparse.linalg.svds(J, k=3, return_singular_vectors=False)),
        sorted(np.linalg.svd(truth, compute_uv=False))[-3:],
        rtol=1e-4,
    )
    values = scipy.sparse.linalg.eigsh(
        symmetric_part(J), k=3, which="LA", return_eigenvectors=False
    )
    np.testing.assert_allclose(
        sorted(values), np.linalg.eigvalsh((truth + truth.T) / 2)[-3:], rtol=1e-4
    )
    b = J @ np.ones(64)
    assert (
        relative(J @ scipy.sparse.linalg.lsmr(J, b, atol=1e-7, btol=1e-7, maxiter=500)[0], b) < 1e-4
    )


def test_half_precision_is_computed_as_it_is_and_handed_back_in_float32():
    J = JacobianOperator(
        networks.denoiser(dtype=torch.bfloat16), torch.randn(1, 8, 8, dtype=torch.bfloat16), 300
    )
    assert J.dtype == np.float32
    assert (J.T @ np.ones(64, dtype=np.float32)).dtype == np.float32


def test_a_small_block_of_differences_states_its_larger_error():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(1, 1, 3, padding=1)  # and little else that far apart
    far = Denoiser(
        lambda x, _: conv(x).sin() + 1e-3 * x.mean((2, 3), keepdim=True) ** 2,
        DiscreteSchedule.linear(),
        "sample",
        networks.SHAPE,
    )
    x_t = seeded_noise([0], networks.SHAPE)
    rows, columns = (np.arange(64) >= 56), (np.arange(64) < 8)
    J = JacobianOperator(far, x_t, 300, products="central")
    conv.double()
    truth = JacobianOperator(far, x_t.double(), 300).dense()[np.ix_(rows, columns)]
    conv.float()
    block = restriction(J, rows, columns)
    V = np.random.default_rng(0).standard_normal((8, 5))
    off = relative(block @ V, truth @ V)
    assert J.rounding < off <= block.rounding
    assert off <= block.product_error


def test_restriction_is_the_submatrix(network_at):
    denoiser, x_t, t, truth = network_at
    J = JacobianOperator(denoiser, x_t, t)
    mask = torch.zeros(networks.SHAPE, dtype=torch.bool)
    mask[:, :, :3] = True
    other = np.arange(64) % 5 == 0
    m = mask.numpy().reshape(-1)
    V = np.random.default_rng(0).standard_normal((64, 2))
    assert relative(restriction(J, mask) @ V[:24], truth[np.ix_(m, m)] @ V[:24]) < 1e-10
    assert relative(restriction(J, mask).T @ V[:24], truth[np.ix_(m, m)].T @ V[:24]) < 1e-10
    assert relative(restriction(J, mask, other) @ V[:13], truth[np.ix_(m, other)] @ V[:13]) < 1e-10
    assert (
        relative(restriction(J, mask, other).T @ V[:24], truth[np.ix_(m, other)].T @ V[:24]) < 1e-10
    )
    assert (
        relative(restriction(J @ J, mask) @ V[:24], (truth @ truth)[np.ix_(m, m)] @ V[:24]) < 1e-10
    )


def test_products_work_inside_no_grad_and_inference_mode_and_restore_the_attention_kernels(
    network_at,
):
    denoiser, x_t, t, truth = network_at
    v = np.random.default_rng(0).standard_normal(64)
    for context in (torch.no_grad, torch.inference_mode):
        with context(), sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            J = JacobianOperator(denoiser, x_t * 1.0, t)
            assert relative(J @ v, truth @ v) < 1e-10
            assert relative(J.T @ v, truth.T @ v) < 1e-10
            assert torch.backends.cuda.flash_sdp_enabled()
            assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_weights_receive_no_gradient(network_at):
    denoiser, x_t, t, _ = network_at
    J = JacobianOperator(denoiser, x_t, t)
    J @ np.ones(64)
    J.T @ np.ones(64)
    assert all(p.grad is None for p in denoiser.parameters())


def test_bad_points_are_refused():
    denoiser = networks.denoiser()
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    nan = x.clone()
    nan[0, 0, 0, :2] = float("nan")
    for arguments, message in [
        ((denoiser, nan, 5), "x_t has 2 values of 64 that are not finite"),
        ((denoiser, x, 1000), "time 1000 is outside"),
        ((denoiser, torch.zeros(1, 1, 8, 9, dtype=torch.float64), 5), r"expected \(B, 1, 8, 8\)"),
        ((denoiser, torch.zeros(8, 8, dtype=torch.float64), 5), r"expected \(B, 1, 8, 8\)"),
        ((denoiser, x.expand(2, -1, -1, -1), 5), r"batch of 2; take x_t\[i\]"),
        ((denoiser, x.long(), 5), "floating-point tensor: got a tensor of int64"),
        ((denoiser, x.numpy(), 5), "floating-point tensor: got a numpy array of float64"),
        ((denoiser, x, 5, "exakt"), "unknown products 'exakt'"),
        ((denoiser, x, 5, "forward", -1.0), "step must be positive"),
    ]:
        with pytest.raises(InputError, match=message):
            JacobianOperator(*arguments)


def test_training_mode_and_a_broken_network_are_told_apart():
    x = torch.zeros(1, 8, 8, dtype=torch.float64)
    with pytest.raises(InputError, match=r"training mode .*Call denoiser.eval\(\)"):
        JacobianOperator(networks.denoiser().train(), x, 5)
    denoiser = networks.denoiser()
    denoiser.network.first.weight.data[:] = float("inf")
    with pytest.raises(
        InputError, match=r"the network's output F\(x_t, t\) has 64 values .* though x_t is finite"
    ):
        JacobianOperator(denoiser, x, 5)


def test_bad_vectors_and_masks_are_refused():
    J = JacobianOperator(networks.denoiser(), torch.zeros(1, 8, 8, dtype=torch.float64), 5)
    for operator in (J, J.T, symmetric_part(J)):
        for x in (np.ones(63), np.ones((63, 2)), np.ones((1, 8, 8))):
            with pytest.raises(
                InputError, match=r"takes shape \(64,\) or \(64, k\): got .* Flatten an image"
            ):
                operator @ x
    with pytest.raises(InputError, match=r"mask of rows has 63 entries.*expected 64"):
        restriction(J, np.ones(63, dtype=bool))
    with pytest.raises(InputError, match="must be boolean: got float64"):
        restriction(J, np.ones(64))
    with pytest.raises(InputError, match="marks no entry"):
        restriction(J, np.ones(64, dtype=bool), np.zeros(64, dtype=bool))
    with pytest.raises(InputError, match="square operator: got 64 x 13"):
        symmetric_part(restriction(J, np.ones(64, dtype=bool), np.arange(64) % 5 == 0))


def test_operator_of_two_callables():
    A = np.arange(6.0).reshape(2, 3)
    operator = Operator((2, 3), np.float64, lambda V: A @ V, lambda U: A.T @ U)
    np.testing.assert_array_equal(operator @ np.eye(3), A)
    np.testing.assert_array_equal(operator.T @ np.eye(2), A.T)
    assert operator.T.shape == (3, 2)


def test_newton_directions_are_their_definitions(network_at):
    denoiser, x_t, t, truth = network_at
    J = JacobianOperator(denoiser, x_t, t)
    e = torch.randn(
        1, *networks.SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    flat = e.numpy().reshape(-1)
    u, s, vt = np.linalg.svd(truth)
    kept = s > 0.1 * s[0]
    expected = {
        "inexact": truth @ flat,
        "gradient": truth.T @ flat,
        "identity": flat,
        "exact": vt[kept].T @ ((u[:, kept].T @ flat) / s[kept]),
    }
    for kind, delta in expected.items():
        for operator in (J, truth):
            result = newton_direction(operator, e, kind, rcond=0.1)
            assert result.shape == e.shape
            assert result.dtype == e.dtype
            assert relative(result.reshape(-1), delta) < 1e-8
            array = newton_direction(operator, flat, kind, rcond=0.1)
            assert isinstance(array, np.ndarray)
            assert array.shape == flat.shape
    krylov = newton_direction(J, flat, "krylov", steps=6)
    K = np.stack([np.linalg.matrix_power(truth, k) @ flat for k in range(6)], axis=1)
    best = K @ np.linalg.lstsq(truth @ K, flat)[0]
    assert relative(truth @ krylov, truth @ best) < 1e-6


def test_parts_of_an_integer_matrix_are_not_truncated():
    A = np.array([[0, 1, 2], [0, 0, 4], [1, 0, 1]])
    v = np.array([1, 2, 3])
    for operator in (A, A.astype(np.int8), A.astype(bool), scipy.sparse.linalg.aslinearoperator(A)):
        matrix = operator.astype(float) if isinstance(operator, np.ndarray) else A
        np.testing.assert_array_equal(symmetric_part(operator) @ v, (matrix + matrix.T) / 2 @ v)
        np.testing.assert_array_equal(skew_part(operator) @ v, (matrix - matrix.T) / 2 @ v)
        np.testing.assert_array_equal(
            restriction(operator, [True, False, True]) @ [0.5, 1.0],
            matrix[np.ix_([0, 2], [0, 2])] @ [0.5, 1.0],
        )


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1.0, 1e5])
def test_products_in_half_precision_are_those_of_any_scale(scale):
    model = networks.unet(torch.float16)
    x = seeded_noise([0], model.shape).half()
    J = JacobianOperator(model, x, 300)
    V = np.random.default_rng(0).standard_normal((x.numel(), 2)).astype(np.float32)
    for A in (J, J.T):
        np.testing.assert_allclose(A @ (scale * V) / scale, A @ V, rtol=0, atol=2e-2)
