"""Bad calls of the Python API: each is refused by an `InputError` that names the value, before the
network or operator runs.

A line of the tables is a call with a gap, and what is put there. The twin table has right calls,
which go on working.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn

import jacobian_lab.constraints.linear
import jacobian_lab.diffusion.oracle
import jacobian_lab.krylov.least_squares
import jacobian_lab.krylov.many_systems
import jacobian_lab.sampling.conditional
import jacobian_lab.sampling.newton
import jacobian_lab.sampling.sampler
import jacobian_lab.sampling.step_size
import mnist.classifier
import mnist.evaluate
import mnist.latent
import mnist.oracle
from jacobian_lab import (
    Denoiser,
    DiscreteSchedule,
    Estimate,
    InputError,
    JacobianOperator,
    RectifiedFlow,
    arnoldi,
)
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.diffusion.oracle import gaussian
from jacobian_lab.krylov.regularisation import truncated_svd
from jacobian_lab.linops.batch_jacobian import BatchJacobian

MODULES = (
    jacobian_lab,
    jacobian_lab.krylov.many_systems,
    jacobian_lab.constraints.linear,
    jacobian_lab.sampling.conditional,
    jacobian_lab.sampling.newton,
    jacobian_lab.diffusion.oracle,
    jacobian_lab.sampling.sampler,
    jacobian_lab.krylov.least_squares,
    jacobian_lab.sampling.step_size,
    mnist.classifier,
    mnist.evaluate,
    mnist.latent,
    mnist.oracle,
)
SHAPE = (1, 3, 4)


class Network(nn.Module):
    """A small network that counts its passes."""

    passes = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t):
        Network.passes += 1
        return torch.tanh(self.layer(x))


class Counting(LinearOperator):
    """A 6 x 6 operator that counts its products."""

    products = 0

    def __init__(self):
        self.matrix = np.random.default_rng(0).standard_normal((6, 6))
        super().__init__(np.dtype(float), (6, 6))

    def _matmat(self, X):
        Counting.products += 1
        return self.matrix @ X

    def _rmatmat(self, X):
        Counting.products += 1
        return self.matrix.T @ X


def names():
    """Return what the calls of the tables may name."""
    torch.manual_seed(0)
    network, table = Network().eval(), DiscreteSchedule.linear()
    denoiser = Denoiser(network, table, "v", SHAPE).eval()
    x, A = torch.randn(2, *SHAPE), Counting()
    covariance = torch.eye(12, dtype=torch.float64)
    oracle = gaussian(torch.zeros(12, dtype=torch.float64), covariance, table, SHAPE)
    given = {
        "network": network,
        "table": table,
        "flow": RectifiedFlow(),
        "D": denoiser,
        "x": x,
        "x1": x[:1],
        "A": A,
        "M": A.matrix,
        "J": JacobianOperator(denoiser, x[:1], 500),
        "B": BatchJacobian(denoiser, x, 500),
        "f": arnoldi(A.matrix, 3),
        "b": np.ones(6),
        "e": np.ones(12),
        "noise": torch.randn(2, *SHAPE),
        "nan": math.nan,
        "inf": math.inf,
        "mask": np.ones(6, dtype=bool),
        "oracle": oracle,
        "C": covariance,
        "known": torch.ones(1, 3, 4, dtype=torch.bool),
        "inpainting": Inpainting(x, torch.ones(1, 3, 4, dtype=torch.bool)),
        "generator": torch.Generator(),
        "W": lambda v: v,
        "wide": np.ones((2, 3)),
        "hole": torch.full((1, *SHAPE), math.nan),
        "estimate": Estimate(1.0, 0.1, 3, 2),
        "svd": truncated_svd(A.matrix, np.ones(6)),
        "images": torch.zeros(4, 1, 32, 32),
    }
    public = {name: value for module in MODULES for name, value in vars(module).items()}
    return public | globals() | given


BAD = {
    # the model
    "Denoiser({}, table, 'v', SHAPE)": ["None", "'unet'", "3", "[network]"],
    "Denoiser(network, {}, 'v', SHAPE)": [
        "None",
        "'linear'",
        "[0.9, 0.5]",
        "torch.ones(3)",
        "DiscreteSchedule",
    ],
    "Denoiser(network, table, {}, SHAPE)": ["None", "'eps'", "3", "['v']", "('v',)"],
    "Denoiser(network, table, 'v', {})": [
        "None",
        "'abc'",
        "12",
        "(3, -4)",
        "(1, 3, 4.0)",
        "(1, 0, 4)",
        "(1, True, 4)",
        "(1, -3, 4)",
        "('1', '3', '4')",
    ],
    "D({}, 500)": [
        "None",
        "'x'",
        "x.numpy()",
        "x.tolist()",
        "x.long()",
        "x > 0",
        "x * 1j",
        "x[0, 0]",
        "x[None]",
        "x.mT",
        "torch.zeros(0)",
        "torch.zeros(0, *SHAPE)",
        "3.0",
    ],
    "D(x, {})": [
        "None",
        "'noon'",
        "2.5",
        "500.0",
        "-1",
        "1000",
        "nan",
        "True",
        "1j",
        "[1, 2, 3]",
        "torch.ones(2, 2).long()",
        "torch.tensor([1, 1000])",
        "'500'",
        "10**30",
        "{'t': 3}",
        "(t for t in (3, 4))",
    ],
    "Denoiser(network, flow, 'flow', SHAPE)(x, {})": [
        "None",
        "'noon'",
        "0",
        "0.0",
        "1.5",
        "-0.5",
        "nan",
        "inf",
        "1j",
        "True",
        "[0.1, 0.2, 0.3]",
    ],
    "D.noise({}, x, 500)": ["None", "x.numpy()", "x.long()", "x[:1, :, :2]"],
    "D.raw(x, {}, 500)": ["None", "'x'", "x.long()"],
    "table.add_noise({}, 500, x)": ["None", "x.numpy()", "x.tolist()", "x.long()", "x[0, 0]"],
    "table.add_noise(x, 500, {})": ["None", "x.numpy()", "x.long()", "x[:1]", "0.5"],
    "guided(network, {}, 4.0)": ["None", "'unet'", "3"],
    "guided(network, network, {})": ["None", "'4'", "nan", "inf", "[4.0]", "x"],
    # schedules
    "DiscreteSchedule({})": [
        "None",
        "'linear'",
        "[]",
        "[0.5, 0.6]",
        "[0.5, nan]",
        "[1.5, 0.5]",
        "[[0.9, 0.5]]",
        "0.5",
        "torch.ones(3) * 1j",
        "torch.tensor([True, True])",
        "[0.5, 0.0, 0.0]",
        "[-0.1]",
        "['a']",
        "torch.empty(3, device='meta')",
    ],
    "DiscreteSchedule.from_betas({})": [
        "None",
        "'linear'",
        "[]",
        "[0.1, -0.1]",
        "[0.1, 1.0, 0.1]",
        "[nan]",
        "0.1",
    ],
    "DiscreteSchedule.linear({})": ["0", "-1", "2.5", "'10'", "None", "True", "10**12"],
    "DiscreteSchedule.linear(10, {})": ["nan", "-0.1", "'a'", "None", "2.0"],
    "DiscreteSchedule.scaled_linear(10, {})": ["nan", "-0.1", "'a'", "None", "2.0"],
    "DiscreteSchedule.cosine({})": ["0", "2.5", "None", "10**12"],
    "DiscreteSchedule.cosine(10, {})": ["nan", "-2.0", "'a'", "None", "inf"],
    "DiscreteSchedule.cosine(10, 0.008, {})": ["nan", "0", "1.5", "'a'"],
    "table.times({})": ["0", "-1", "1001", "2.5", "None", "'5'", "True", "nan"],
    "table.times(5, {})": ["-1", "1000", "2.5", "'x'", "nan", "998", "[1]", "torch.tensor([1, 2])"],
    "flow.times({})": ["0", "2.5", "None", "'5'", "10**12", "nan"],
    "flow.times(5, {})": ["0", "2.0", "nan", "'x'", "[0.1]", "-0.5"],
    # operators
    "JacobianOperator({}, x1, 500)": ["None", "network", "'mnist'", "A"],
    "JacobianOperator(D, {}, 500)": [
        "None",
        "x",
        "x1.numpy()",
        "x1.long()",
        "x1[0, 0]",
        "hole",
        "x1 / 0",
        "x1.to('meta')",
        "x1.tolist()",
        "x1.mT",
        "torch.zeros(0, *SHAPE)",
        "x1 * 1j",
        "x1.to_sparse()",
    ],
    "JacobianOperator(D, x1, {})": [
        "None",
        "'noon'",
        "2.5",
        "-1",
        "1000",
        "nan",
        "[1, 2]",
        "torch.tensor([1, 2])",
        "True",
    ],
    "JacobianOperator(D, x1, 500, {})": ["'fast'", "None", "3", "['exact']", "True", "'EXACT'"],
    "JacobianOperator(D, x1, 500, 'central', {})": [
        "0",
        "-1e-3",
        "nan",
        "inf",
        "'1e-3'",
        "1e-30",
        "1e30",
        "True",
        "[1e-3]",
    ],
    "JacobianOperator(D, x1, 500, memory={})": [
        "0",
        "-1",
        "nan",
        "'1 GB'",
        "True",
        "[2**20]",
        "inf",
    ],
    "J @ {}": [
        "None",
        "'x'",
        "np.ones(11)",
        "np.ones((1, 12))",
        "np.ones((12, 2, 2))",
        "np.array(['a'] * 12)",
        "np.array([None] * 12)",
        "{'v': 1}",
        "x1",
        "[[1.0], [2.0, 3.0]]",
    ],
    "J.T @ {}": ["None", "'x'", "np.ones(11)", "np.array([None] * 12)"],
    "J.products.jvp({})": ["None", "x.numpy()", "x.long()", "x[:, :, :2]", "x[0]"],
    "J.products.vjp({})": ["None", "x.numpy()", "x.long()", "x[:, :, :2]", "x[0]"],
    "BatchJacobian({}, x, 500)": ["None", "network", "J"],
    "BatchJacobian(D, {}, 500)": [
        "None",
        "x.numpy()",
        "x.long()",
        "x[0, 0]",
        "hole",
        "torch.zeros(0, *SHAPE)",
    ],
    "BatchJacobian(D, x, {})": ["None", "2.5", "-1", "1000", "'noon'"],
    "BatchJacobian(D, x, 500, {})": ["'fast'", "None", "3"],
    "BatchJacobian(D, x, 500, graph={})": ["'no'", "2", "None"],
    "BatchJacobian(D, x, 500, spent={})": ["3", "{}"],
    "BatchJacobian(D, x, 500, like={})": ["J", "'B'"],
    "B.jvp({})": ["None", "x.numpy()", "x.long()", "x[:1]", "x.mT", "3.0"],
    "B.vjp({})": ["None", "x.numpy()", "x.long()", "x[:1]"],
    "B.block({})": ["-1", "2", "0.5", "None", "'0'"],
    "B.denoise({})": ["None", "x.numpy()", "x.long()"],
    "symmetric_part({})": [
        "None",
        "'A'",
        "wide",
        "M * 1j",
        "np.ones(3)",
        "np.ones((2, 2, 2))",
        "np.array([['a']])",
        "3",
        "torch.ones(3, 3)",
        "M.tolist()",
        "np.zeros((0, 0))",
    ],
    "skew_part({})": ["None", "wide", "M * 1j", "x"],
    "restriction(A, {})": ["None", "np.ones(6)", "mask[:5]", "~mask", "[0, 1]", "'all'"],
    "restriction(A, mask, {})": ["np.ones(6)", "mask[:5]", "~mask", "'all'"],
    "posterior_covariance({})": ["None", "A", "M", "D"],
    "audit({})": ["None", "A", "M", "D", "B", "J.T"],
    "audit(J, {})": ["-1", "2.5", "None", "'a'", "2**64", "True"],
    # Krylov
    "Arnoldi({})": ["None", "wide", "'A'", "M * 1j"],
    "Arnoldi(A, {})": [
        "np.zeros(6)",
        "np.ones(5)",
        "np.full(6, nan)",
        "'x'",
        "3.0",
        "1j * b",
        "np.array([None] * 6)",
    ],
    "Arnoldi(A, None, {})": ["-1", "2.5", "None", "'a'", "2**64", "True", "[1, 2]"],
    "arnoldi(A, {})": ["-1", "2.5", "None", "'a'", "True", "nan"],
    "Arnoldi(A).extend({})": ["-1", "2.5", "None", "'a'", "True", "nan"],
    "Arnoldi(A).exhaust({})": ["0", "-1", "2.5", "None"],
    "eigenpairs({}, 2)": ["None", "wide", "'A'", "M * 1j", "M + nan", "x"],
    "eigenpairs(A, {})": ["0", "-1", "7", "2.5", "None", "'3'", "True", "nan", "[2]", "2.0"],
    "eigenpairs(A, 2, {})": ["'XX'", "None", "'lm'", "3", "['LM']"],
    "eigenpairs(A, 2, symmetric={})": ["'no'", "None", "2"],
    "eigenpairs(A, 2, rtol={})": [
        "0",
        "5",
        "1",
        "-1e-9",
        "nan",
        "'small'",
        "None",
        "[1e-9]",
        "True",
    ],
    "eigenpairs(A, 2, subspace={})": ["1", "3", "-6", "6.0", "'all'", "True", "nan"],
    "eigenpairs(A, 2, max_products={})": ["0", "4", "-1", "100.5", "'all'", "nan", "True", "inf"],
    "eigenpairs(A, 2, start={})": [
        "np.zeros(6)",
        "np.ones(5)",
        "np.full(6, nan)",
        "'x'",
        "np.ones((6, 1))",
        "1j * b",
    ],
    "eigenpairs(A, 2, seed={})": ["-1", "2.5", "None", "2**64", "'a'", "True"],
    "eigenpairs(A, 2, left={})": ["'no'", "None", "2"],
    "eigenpairs(A, 2, 'LI', symmetric={})": ["True"],
    "singular_values({}, 2)": ["None", "'A'", "M * 1j", "M + nan"],
    "singular_values(A, {})": ["0", "-1", "7", "2.5", "None", "'3'", "True"],
    "singular_values(A, 2, rtol={})": ["0", "5", "-1", "nan", "'a'", "None"],
    "singular_values(A, 2, subspace={})": ["1", "6.5", "'a'", "-3"],
    "singular_values(A, 2, max_products={})": ["0", "15", "100.5", "'a'"],
    "singular_values(A, 2, seed={})": ["-1", "2.5", "None", "2**64"],
    "numerical_range({})": [
        "None",
        "wide",
        "M * 1j",
        "M + nan",
        "'A'",
        "A",
        "np.zeros((0, 0))",
        "arnoldi(M, 0)",
    ],
    "numerical_range(M, {})": ["2", "-1", "2.5", "None", "'a'", "10**12"],
    "pseudospectrum(M, {})": ["None", "'z'", "nan", "[0, inf]", "['a']", "{}"],
    "pseudospectrum({}, 1.0)": ["None", "wide", "A"],
    "bendixson_box({})": ["None", "wide", "M * 1j", "M + nan"],
    # estimates
    "trace({})": ["None", "wide", "'A'", "M * 1j", "M + nan"],
    "trace(A, sketch={})": ["-1", "2.5", "None", "'a'", "True"],
    "trace(A, probes={})": ["1", "0", "-1", "2.5", "None", "'a'"],
    "trace(A, rtol={})": ["0", "-1", "nan", "'a'", "inf", "5"],
    "trace(A, seed={})": ["-1", "2.5", "None", "2**64"],
    "diagonal(A, probes={})": ["1", "2.5", "'a'"],
    "diagonal(A, rtol={})": ["0", "nan"],
    "frobenius_norm(A, sketch={})": ["-1", "2.5", "'a'"],
    "frobenius_norm(A, seed={})": ["-1", "2.5"],
    "asymmetry({})": ["None", "wide", "np.zeros((3, 3))"],
    "asymmetry(A, probes={})": ["1", "2.5"],
    "asymmetry(A, rtol={})": ["0", "nan", "'a'"],
    "estimate.interval({})": ["0", "1", "nan", "'95 %'", "None", "95"],
    # solving
    "lstsq(A, {})": [
        "None",
        "np.ones(5)",
        "np.ones((6, 1))",
        "b * nan",
        "b * 1j",
        "'b'",
        "['a'] * 6",
    ],
    "lstsq(A, b, {})": ["-1", "1", "nan", "'a'", "True", "[0.1]", "1.5"],
    "lstsq({}, b)": ["None", "'A'", "M * 1j", "M + nan"],
    "truncated_svd(A, {})": ["None", "np.ones(5)", "b * nan"],
    "svd.rank({})": ["-1", "nan", "'a'", "2"],
    "svd.solution({})": ["-1", "7", "2.5", "None", "'a'", "True"],
    "lsmr(A, {})": ["None", "np.ones(5)", "b * nan", "'b'"],
    "lsmr(A, b, {})": ["nan", "-1", "'a'", "None", "inf"],
    "lsmr(A, b, rtol={})": ["5", "nan", "-1", "'a'", "None", "0"],
    "lsmr(A, b, steps={})": ["0", "-1", "2.5", "'a'", "nan"],
    "gmres(A, {})": ["None", "np.ones(5)", "b * nan", "'b'"],
    "gmres({}, b[:2])": ["wide", "None"],
    "gmres(A, b, {})": ["0", "-1", "2.5", "'a'", "None", "True"],
    "gmres(A, b, rtol={})": ["5", "nan", "-1", "'a'", "0"],
    "arnoldi_batch(W, {}, 2)": ["None", "b", "'b'", "np.ones((2, 3)) * 1j", "np.zeros((0, 3))"],
    "arnoldi_batch({}, wide, 2)": ["None", "wide", "3"],
    "arnoldi_batch(W, wide, {})": ["0", "4", "2.5", "None", "'a'"],
    "gmres_batch(W, {}, 2)": ["None", "b", "'b'"],
    "gmres_batch(W, wide, {})": ["0", "-1", "2.5", "None", "'a'"],
    "ritz_values_batch(W, wide, {})": ["0", "4", "2.5", "None"],
    # Newton steps
    "newton_direction({}, e, 'inexact')": ["None", "wide", "'J'"],
    "newton_direction(J, {}, 'inexact')": [
        "None",
        "'e'",
        "e.tolist()",
        "e.astype(int)",
        "e[:5]",
        "e * nan",
        "e * 1j",
        "3.0",
    ],
    "newton_direction(J, e, {})": ["'fast'", "None", "3", "['exact']"],
    "newton_direction(J, e, 'exact', rcond={})": ["-1", "1", "nan", "'a'", "True"],
    "newton_direction(J, e, 'krylov', steps={})": ["0", "-1", "2.5", "None", "'a'"],
    "newton_direction(J, e, 'exact', seen={})": ["W", "3"],
    "newton_direction(B, {}, 'inexact')": ["None", "e", "x[:1]", "x.long()"],
    "newton_direction(B, x, 'exact', rcond={})": ["-1", "1", "nan"],
    "newton_direction(B, x, 'krylov', steps={})": ["0", "2.5"],
    "newton_direction(B, x, 'krylov', seen={})": ["3", "'all'"],
    "dynamic_step_size({}, 0.2)": [
        "None",
        "'g'",
        "e * nan",
        "e * 0",
        "[1.0]",
        "np.zeros(0)",
        "e * 1j",
    ],
    "dynamic_step_size(e, {})": ["nan", "0", "-1", "inf", "'a'", "None"],
    "Newton({})": ["'fast'", "None", "3", "['exact']"],
    "Newton(steps={})": ["-1", "2.5", "None", "True", "'5'"],
    "Newton(products={})": ["'fast'", "None"],
    "Newton(step_size={})": ["0.5", "None", "'dynamic'"],
    "Newton(rcond={})": ["-1", "1", "nan", "'a'"],
    "Newton(krylov_steps={})": ["0", "2.5", "None", "'a'"],
    "Newton(refresh={})": ["'no'", "2", "None"],
    "Newton(aim={})": ["'best'", "None", "'fair'"],
    "Newton(steps=0, aim='fair', tolerance={})": ["0.1"],
    "Newton.fair({})": ["0", "2.5", "None", "'a'"],
    "Newton.fair(3, {})": ["'fast'", "None"],
    "conditional_mean({}, inpainting, 2)": ["None", "J", "D"],
    "conditional_mean(B, {}, 2)": ["None", "mask", "x"],
    "conditional_mean(B, inpainting, {})": ["0", "2.5", "None", "'a'"],
    "Dynamic({})": ["0", "-1", "nan", "inf", "None", "'a'"],
    "Dynamic(0.2, {})": ["-1", "nan", "'a'", "inf"],
    "Secant({})": ["0", "nan", "None", "'a'"],
    "PerError({})": ["0", "nan", "None", "'a'"],
    "Fixed({})": ["0", "-1", "nan", "inf", "None", "'a'"],
    "Spectral({})": ["0", "nan", "None", "'a'", "inf"],
    "Spectral(1.0, {})": ["0", "2.5", "None", "'a'"],
    "Backtracking({})": ["0", "nan", "None", "'a'"],
    "Backtracking(1.0, {})": ["0", "2.5", "None", "'a'"],
    "newton_step({}, inpainting, Newton())": ["None", "J", "D"],
    "newton_step(B, {}, Newton())": ["None", "mask", "x"],
    "newton_step(B, inpainting, {})": ["None", "'inexact'"],
    "newton_step(B, inpainting, Newton(), {})": ["nan", "-1", "2", "'a'", "None"],
    # sampling
    "sample({}, noise, [500, 100])": ["None", "network", "'mnist'"],
    "sample(D, {}, [500, 100])": [
        "None",
        "noise.numpy()",
        "noise.long()",
        "noise[:, :, :2]",
        "noise * nan",
        "noise[0]",
        "torch.zeros(0, *SHAPE)",
    ],
    "sample(D, noise, {})": [
        "None",
        "[]",
        "500",
        "[100, 500]",
        "[500, 500]",
        "[500, 2.5]",
        "[1000, 500]",
        "[500, -1]",
        "'abc'",
        "['a']",
        "[500, nan]",
        "[500, None]",
        "[[500], [100]]",
        "torch.tensor(500)",
    ],
    "sample(D, noise, [500, 100], {})": ["mask", "'inpaint'", "x", "W"],
    "sample(D, noise, [500, 100], None, {})": ["Newton()"],
    "sample(D, noise, [500, 100], inpainting, {})": ["3", "'inexact'"],
    "sample(D, noise, [500, 100], eta={})": ["-1", "2", "nan", "'a'", "None", "0.5"],
    "sample(D, noise, [500, 100], eta=1.0, seeds={})": [
        "None",
        "[1]",
        "[1, 2.5]",
        "[1, -2]",
        "['a', 'b']",
        "3",
        "[1, 2**64]",
    ],
    "sample(D, noise, [500, 100], project={})": ["True", "'no'", "2"],
    "sample(D, noise, [500, 100], inpainting, project={})": ["'no'", "2", "None"],
    "sample(D, noise, [500, 100], {}, project=True)": [
        "Inpainting(x, torch.ones(1, 3, 4) > 0, 0.1)",
        "Loss(lambda x: x.flatten(1).square().mean(1))",
        "inpainting + inpainting",
        "Decoded(inpainting, W, W, 'secant')",
        "Inpainting(x[:1].expand(3, *SHAPE), torch.ones(1, 3, 4) > 0)",
    ],
    "seeded_noise({}, SHAPE)": [
        "None",
        "3",
        "[]",
        "[-1]",
        "[2.5]",
        "['a']",
        "[2**64]",
        "[None]",
        "[True]",
        "'12'",
    ],
    "seeded_noise([1], {})": ["None", "12", "(1, 2.5, 3)", "(1, 0, 3)", "'abc'"],
    "seeded_noise([1], SHAPE, {})": ["'gpu'", "'meta'", "'cuda:99'", "3.5"],
    "seeded_noise([1], SHAPE, 'cpu', {})": ["torch.int32", "'float32'", "None", "np.float32"],
    "seed_of({})": ["-1", "2.5", "None", "'a'", "True"],
    "ddim_step(D, {}, x, 500, 100)": ["None", "x.numpy()", "x.long()"],
    "ddim_step(D, x, x, {}, 100)": ["1000", "None", "2.5"],
    "ddim_step(D, x, x, 500, {})": ["1000", "None", "2.5", "600"],
    "ddim_step(D, x, x, 500, 100, {})": ["nan", "2", "-1", "'a'"],
    "ddim_step(D, x, x, 500, 100, 1.0, {})": ["x[:1]", "x[None]", "1.0", "x.long()", "x.numpy()"],
    # constraints
    "Inpainting({}, known)": ["None", "x.numpy()", "x.long()", "x.tolist()", "hole"],
    "Inpainting(x, {})": ["None", "known.numpy()", "known.float()", "[True]"],
    "Inpainting(x, known, {})": ["-1", "nan", "inf", "'0.1'", "None", "True", "x"],
    "LinearMap({}, W, W)": ["None", "x.numpy()", "x.long()", "[1.0]", "hole"],
    "LinearMap(x, {}, W)": ["None", "M", "'A'"],
    "LinearMap(x, W, {})": ["None", "M", "'A'"],
    "LinearMap(x, W, W, 0.1, {})": ["-1", "nan", "inf", "'0.1'", "True"],
    "LinearMap(x, W, W, steps={})": ["0", "-1", "2.5", "None", "'a'"],
    "LinearMap(x, W, W, rtol={})": ["-1", "1", "nan", "None", "'a'"],
    "inpainting + {}": ["None", "0.5", "x", "'a'"],
    "inpainting + inpainting + {}": ["None", "0.5"],
    "{} * inpainting": ["'a'", "-1", "nan", "inf", "None", "True", "[0.5]"],
    "blur(x, {})": ["None", "np.ones((1, 1))", "[[1.0]]", "torch.ones(1, 2)"],
    "super_resolution(x, {})": ["0", "-2", "2.0", "1.5", "None", "'2'"],
    "gaussian_blur(x, {})": ["0", "-1", "nan", "inf", "None", "'1'"],
    "class_label(W, {})": [
        "3",
        "None",
        "x",
        "torch.ones(2)",
        "torch.tensor([-100])",
        "np.ones(2, int)",
    ],
    "class_label(W, {}).residual(x)": ["torch.tensor([1, 2, 3])", "torch.tensor([], dtype=int)"],
    "segmentation(W, {})": ["3", "None", "x", "torch.ones(1)", "torch.ones(2, 1, 3, 4).long()"],
    "segmentation(W, {}).error(x)": ["torch.zeros(3, 3, 4, dtype=int)"],
    "masks.box(SHAPE, {})": ["0", "4", "2.5", "None", "'2'"],
    "masks.random_pixels(SHAPE, {})": ["0", "1.5", "nan", "None", "'a'"],
    "masks.random_pixels(SHAPE, 0.5, {})": ["-1", "2.5", "None", "'a'"],
    "masks.free_form(SHAPE, {})": ["0", "2.5", "None", "'a'"],
    "masks.free_form(SHAPE, 1, {})": ["0", "1", "nan", "None", "'a'"],
    "masks.free_form(SHAPE, 1, 0.1, {})": ["-1", "2.5", "None", "'a'"],
    # oracles
    "GaussianMixture({}, C, table)": [
        "None",
        "C",
        "[0.0] * 12",
        "torch.zeros(11)",
        "torch.full((12,), nan)",
    ],
    "GaussianMixture(torch.zeros(12).double(), {}, table)": [
        "None",
        "-C",
        "C * nan",
        "C[:11]",
        "C.tolist()",
        "torch.ones(12, 12).triu()",
    ],
    "GaussianMixture(torch.zeros(12).double(), C, {})": ["None", "'linear'"],
    "GaussianMixture(torch.zeros(12).double(), C, table, {})": [
        "torch.tensor([-1.0])",
        "torch.ones(2)",
        "'a'",
        "torch.tensor([nan])",
    ],
    "GaussianMixture(torch.zeros(12).double(), C, table, None, {})": [
        "(1, 3, 5)",
        "(3, 5)",
        "'abc'",
        "(1, 3, 4.0)",
    ],
    "oracle.sample({}, generator)": ["0", "-1", "2.5", "None", "'a'"],
    "oracle.sample(2, {})": ["None", "3"],
    "oracle.mean({}, 500)": ["None", "e", "x[:, :, :2]", "x.long()"],
    "oracle.jacobian(x1.double(), {})": ["1000", "None", "2.5"],
    "oracle.conditioned({}, torch.zeros(2))": [
        "None",
        "torch.eye(2)",
        "'A'",
        "np.ones((2, 12))",
        "torch.ones(2, 12)",
    ],
    "oracle.conditioned(torch.eye(12)[:2], torch.zeros(2), {})": ["-1", "nan", "'a'", "None"],
    "oracle.denoiser({})": ["'eps'", "None"],
    # models of digits
    "mnist.load_denoiser({})": ["None", "3", "'unet'", "'classifier'", "''", "[]"],
    "mnist.load_denoiser('mnist', {})": [
        "'gpu'",
        "'meta'",
        "'cuda:99'",
        "3.5",
        "''",
        "'hpu'",
        "'cpu:7'",
        "['cpu']",
    ],
    "mnist.load_denoiser('mnist', 'cpu', {})": [
        "torch.int32",
        "'float32'",
        "None",
        "np.float32",
        "torch.complex64",
    ],
    "mnist.load_classifier({})": ["None", "'unet'", "'denoiser'"],
    "mnist.load_classifier('classifier', {})": ["'gpu'", "'meta'"],
    "load_oracle({})": ["'gpu'", "'meta'"],
    "load_oracle('cpu', {})": ["torch.int32", "'float32'"],
    "mnist.digits({})": ["None", "'val'", "3", "['test']"],
    "mnist.digits('test', {})": ["3", "['here']", "'/nowhere'"],
    "mnist.load_latent({})": ["3", "None", "['a seven']"],
    "mnist.load_latent('', '', {})": ["nan", "'4'", "None", "inf"],
    "mnist.load_latent(device={})": ["'gpu'", "'meta'", "'cuda:99'"],
    "mnist.load_latent(dtype={})": ["torch.int32", "'float32'"],
    "caption({})": ["10", "-1", "2.5", "None", "'7'", "True"],
    "squared_errors(D, {}, 500, 0)": ["None", "x.numpy()", "x.long()", "torch.zeros(0, *SHAPE)"],
    "squared_errors(D, x, 500, {})": ["-1", "2.5", "None"],
    "noisy_digit(D, x[0], 500, {})": ["-1", "2.5", "None"],
    "ddim_samples(D, {}, 3)": ["None", "[]", "[-1]"],
    "ddim_samples(D, [1], {})": ["0", "1001", "2.5"],
    "accuracy(network, {}, torch.zeros(4))": ["None", "images[:0]", "images.long()"],
    "accuracy(network, images, {})": ["torch.zeros(3)", "None"],
    "distances(network, images, {})": ["None", "images[:0]"],
}
BAD_CALLS = [call.replace("{}", value) for call, values in BAD.items() for value in values]


@pytest.fixture(scope="module")
def given():
    return names()


def refusal(call, given):
    """Return the error of a bad call, in one line, having looked at what was computed before it."""
    passes, products = Network.passes, Counting.products
    with pytest.raises(InputError) as raised:
        eval(call, dict(given))  # a generator is refused when it is made, not at its first step
    assert (Network.passes, Counting.products) == (passes, products), "something was computed first"
    return str(raised.value)


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_bad_call_is_refused_before_anything_is_computed(given, call):
    message = refusal(call, given)
    assert len(message) > 20
    assert len(message) < 600
    assert "\n" not in message


def test_there_are_bad_calls_enough():
    assert len(BAD_CALLS) == len(set(BAD_CALLS)) > 300


RIGHT = {
    "class_label(lambda x: x.flatten(1), {}).error(x)": [
        "torch.tensor([1, 11])",
        "torch.tensor([3])",
        "torch.tensor(3)",
        "torch.tensor([1, 2], dtype=torch.int32)",
    ],
    "segmentation(lambda x: x.expand(-1, 3, -1, -1), {}).residual(x)": [
        "torch.ones(2, 3, 4).long()",
        "torch.ones(3, 4).int()",
    ],
    "Inpainting(x, known, {})": ["0", "0.1", "np.float32(0.1)", "torch.tensor(0.1)"],
    "{} * inpainting": ["0", "0.5", "np.float64(0.5)", "torch.tensor(0.5)"],
    "super_resolution(x, {})": ["1", "np.int64(2)"],
    "masks.box(SHAPE, {})": ["3", "np.int64(1)", "torch.tensor(2)"],
    "Denoiser(network, table, 'v', {})": ["[1, 3, 4]", "torch.Size((1, 3, 4))", "np.array(SHAPE)"],
    "Denoiser({}, table, 'v', SHAPE)": ["(lambda x, t: x)", "network.forward"],
    "D(x, {})": [
        "500",
        "np.int64(500)",
        "torch.tensor(500)",
        "torch.tensor([500, 3])",
        "[500, 3]",
        "np.array([500, 3])",
        "torch.tensor(200, dtype=torch.uint8)",
    ],
    "D({}, 500)": ["x", "x[0]", "x.double().float()", "nn.Parameter(x)", "x.expand(2, *SHAPE)"],
    "Denoiser(network, flow, 'flow', SHAPE)(x, {})": [
        "0.5",
        "1",
        "np.float32(0.5)",
        "torch.tensor(0.5)",
        "[0.5, 0.25]",
    ],
    "DiscreteSchedule({})": [
        "[0.9, 0.5]",
        "torch.tensor([0.9, 0.0])",
        "np.array([0.9, 0.9])",
        "(1, 0.5)",
    ],
    "DiscreteSchedule.from_betas({})": [
        "[0.1, 0.2]",
        "torch.tensor([0.1, 1.0])",
        "np.array([0.0, 0.1])",
    ],
    "DiscreteSchedule.linear({})": ["10", "np.int32(10)", "torch.tensor(10)"],
    "DiscreteSchedule.cosine({})": ["1", "10"],
    "table.times(3, {})": ["None", "0", "500", "np.int64(500)", "torch.tensor(500)"],
    "flow.times(3, {})": ["None", "0.25", "1", "np.float32(0.25)", "torch.tensor(0.25)"],
    "JacobianOperator(D, x1, {})": [
        "500",
        "np.int64(500)",
        "torch.tensor(500)",
        "torch.tensor([500])",
    ],
    "JacobianOperator(D, {}, 500)": ["x1", "x1[0]", "nn.Parameter(x1)"],
    "JacobianOperator(D, x1, 500, {})": ["'exact'", "'forward'", "'central'"],
    "JacobianOperator(D, x1, 500, 'central', {})": [
        "None",
        "1e-3",
        "np.float32(1e-3)",
        "torch.tensor(1e-3)",
        "1",
    ],
    "JacobianOperator(D, x1, 500, memory={})": ["1", "2**30", "1e9", "np.int64(2**20)"],
    "J @ {}": [
        "e",
        "e.tolist()",
        "np.ones((12, 3))",
        "e * 1j",
        "torch.ones(12)",
        "np.ones(12, int)",
        "J",
    ],
    "BatchJacobian(D, x, 500, graph={})": ["True", "False", "np.True_"],
    "B.block({})": ["0", "np.int64(1)", "torch.tensor(1)"],
    "symmetric_part({})": [
        "A",
        "M",
        "M.astype(np.float32)",
        "M > 0",
        "np.arange(9).reshape(3, 3)",
        "J",
        "J.T",
    ],
    "lstsq({}, b)": ["A", "M"],
    "lstsq(A, {})": ["b", "b.tolist()", "np.ones(6, int)", "torch.ones(6)"],
    "lstsq(A, b, {})": ["None", "0", "0.1", "np.float64(0.1)"],
    "lsmr(A, b, {})": ["0", "0.1", "np.float32(1)"],
    "gmres(A, b, {})": ["6", "100", "np.int64(6)"],
    "svd.rank({})": ["0", "0.5", "np.float64(0.1)"],
    "audit(J, {})": ["0", "np.int64(3)"],
    "arnoldi(A, {})": ["0", "3", "np.int64(3)", "100"],
    "Arnoldi(A, {})": ["None", "b", "b.tolist()", "np.ones(6, int)", "torch.ones(6)", "1e-300 * b"],
    "eigenpairs(A, {})": ["1", "6", "np.int64(2)", "torch.tensor(2)"],
    "eigenpairs(M + M.T, 2, symmetric={})": ["True", "np.True_"],
    "eigenpairs(A, 2, rtol={})": ["1e-9", "np.float32(1e-6)", "torch.tensor(1e-6)"],
    "eigenpairs(A, 2, subspace={})": ["None", "6", "np.int64(100)"],
    "singular_values({}, 2)": ["A", "M", "M[:3]", "M[:, :3]"],
    "numerical_range({})": ["M", "f"],
    "pseudospectrum(M, {})": ["1", "1j", "[1, 2j]", "np.ones((2, 3))", "[]"],
    "trace(A, rtol={})": ["None", "0.5", "np.float64(0.9)"],
    "trace(A, sketch={})": ["0", "3", "100", "np.int64(2)"],
    "estimate.interval({})": ["0.95", "np.float32(0.5)"],
    "gmres_batch(W, {}, 2)": ["wide", "wide.tolist()", "wide * 0"],
    "newton_direction({}, e, 'inexact')": ["J", "np.eye(12)", "symmetric_part(J)"],
    "newton_direction(J, {}, 'inexact')": ["e", "e.reshape(SHAPE)", "x1", "e.astype(np.float32)"],
    "newton_direction(J, e, 'exact', rcond={})": ["None", "0", "0.1"],
    "dynamic_step_size({}, 0.2)": ["e", "x", "np.ones(3, int)"],
    "Newton(steps={})": ["0", "3", "np.int64(3)"],
    "Dynamic(0.2, {})": ["None", "0", "0.1", "1"],
    "sample(D, noise, {})": [
        "[500, 100]",
        "(500, 100)",
        "table.times(2)",
        "np.array([500, 100])",
        "torch.tensor([500, 100])",
        "range(500, 0, -400)",
        "[np.int64(500)]",
    ],
    "sample(D, noise, [500, 100], eta=1.0, seeds={})": [
        "[1, 2]",
        "(1, 2)",
        "range(2)",
        "np.array([1, 2])",
    ],
    "seeded_noise([1], SHAPE, {})": ["'cpu'", "torch.device('cpu')"],
    "seeded_noise({}, SHAPE)": ["[0]", "[2**63 - 1]", "range(3)", "np.arange(3)", "(1,)"],
    "GaussianMixture(torch.zeros(12).double(), C, table, None, {})": [
        "None",
        "SHAPE",
        "list(SHAPE)",
    ],
    "oracle.sample({}, generator)": ["1", "np.int64(3)"],
    "mnist.load_denoiser({})": ["'mnist'", "'denoiser'", "'flow'"],
    "mnist.load_denoiser('mnist', 'cpu', {})": ["torch.float64", "torch.bfloat16"],
    "caption({})": ["0", "np.int64(9)", "torch.tensor(3)"],
}


@pytest.mark.parametrize(
    "call", [call.replace("{}", value) for call, values in RIGHT.items() for value in values]
)
@pytest.mark.filterwarnings("ignore::jacobian_lab.ConvergenceWarning")
def test_a_right_call_goes_on_working(given, call):
    found = eval(call, dict(given))
    if inspect.isgenerator(found):
        assert all(state.x0.isfinite().all() for state in found)


def test_numbers_of_every_kind_give_the_same_result(given):
    same = [
        eval(f"table.times({three}, {last})", dict(given))
        for three, last in [
            ("3", "100"),
            ("np.int32(3)", "np.int64(100)"),
            ("torch.tensor(3)", "torch.tensor(100)"),
        ]
    ]
    assert same[0] == same[1] == same[2] == [999, 550, 100]
    flows = [
        eval(f"flow.times(3, {last})", dict(given))
        for last in ("0.5", "np.float64(0.5)", "torch.tensor(0.5)")
    ]
    assert flows[0] == flows[1] == flows[2] == [1, 0.75, 0.5]
