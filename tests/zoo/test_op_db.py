"""PyTorch's own list of operators, each as a network `x -> op(x, ...)`: right or refused, never
wrong in silence.

A sample of `op_db` has a differentiable float64 tensor; x, of its size, takes its place, near its
value, and the output is folded to the shape of x by a fixed random matrix, so that every output
counts.

    pytest -m zoo tests/zoo/test_op_db.py     all; without -m every tenth, as in CI
"""

import os
import warnings
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, JacobianOperator

RANDOM = {
    "normal",
    "bernoulli",
    "multinomial",
    "nn.functional.dropout",
    "nn.functional.dropout2d",
    "nn.functional.dropout3d",
    "nn.functional.alpha_dropout",
    "nn.functional.feature_alpha_dropout",
    "rand_like",
    "randn_like",
    "randint_like",
    "nn.functional.rrelu",
    "uniform",
    "exponential",
    "geometric",
    "log_normal",
    "cauchy",
    "empty_like",
    "new_empty",
    "new_empty_strided",
    "empty_permuted",
    "empty_strided",
    "nn.functional.fractional_max_pool2d",
    "svd_lowrank",
    "nn.functional.fractional_max_pool3d",
    "pca_lowrank",
    "normal_",
    "nn.functional.scaled_dot_product_attention",
    "empty",
}
"""Operators whose result is not a function of their input."""
CASTS = {"half", "bfloat16", "float", "chalf", "cfloat"}
"""Casts: differences of their results are no truth; the zoo has parts in half precision with a twin
in float64.
"""
LARGEST = 256
FOUND = Counter()


@cache
def operators():
    """Return op_db's entries that have a derivative in float64, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    found = {}
    for op in op_db:
        name = f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name
        if op.supports_autograd and torch.float64 in op.dtypes and op.name not in RANDOM | CASTS:
            found[name] = op
    return found


def network_of(op):
    """Return (network, its point, shape) of the first sample that has one, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        for sample in op.sample_inputs("cpu", torch.float64, requires_grad=True):
            given = (
                sample.input
                if isinstance(sample.input, Tensor)
                else (
                    next(iter(sample.input), None)
                    if isinstance(sample.input, (list, tuple))
                    else None
                )
            )
            if (
                not isinstance(given, Tensor)
                or not 2 <= given.numel() <= LARGEST
                or given.dtype != torch.float64
            ):
                continue
            out = outputs(op, sample, given.detach().clone().requires_grad_(), given)
            if out is None or not out.isfinite().all() or not out.requires_grad:
                continue
            n = given.numel()
            fold = (
                torch.randn(
                    out.numel(), n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
                )
                / n
            )

            def network(x, t, sample=sample, given=given, fold=fold):
                rows = [outputs(op, sample, one.reshape(given.shape).clone(), given) for one in x]
                return (torch.stack(rows) @ fold).reshape(x.shape)

            return network, given.detach().reshape(1, 1, 1, n)
    return None


def outputs(op, sample, x, given):
    """Return the floating-point results of one call as a vector."""
    first = x if isinstance(sample.input, Tensor) else [x, *(a.detach() for a in sample.input[1:])]
    args, kwargs = torch.utils._pytree.tree_map(
        lambda a: a.detach().clone() if isinstance(a, Tensor) else a,
        (tuple(sample.args), sample.kwargs),
    )
    out = sample.output_process_fn_grad(op.op(first, *args, **kwargs))
    real = [
        torch.view_as_real(a) if a.is_complex() else a
        for a in tree_leaves(out)
        if isinstance(a, Tensor)
        and (a.is_floating_point() or a.is_complex())
        and a.layout == torch.strided
    ]
    return torch.cat([a.reshape(-1).double() for a in real]) if real else None


def judged(name):
    """Return "right", "refused" or "none" (no sample), or raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = network_of(operators()[name])
        except Exception as error:  # samples that need a GPU, or packages
            pytest.skip(f"no sample: {type(error).__name__}")
        if made is None:
            pytest.skip("no differentiable sample of a few numbers")
        network, x = made
        try:
            J = JacobianOperator(
                Denoiser(network, DiscreteSchedule.linear(), "sample", tuple(x.shape[1:])), x, 500
            )
        except InputError:
            return "refused"
        V = np.random.default_rng(0).standard_normal((x.numel(), 3))
        found = J @ V
        true, doubt = truth(network, x, V)
        stated = J.product_error if "difference" in J.path else 0.0
        limit = max(1e-6, 20 * doubt if doubt < 1e-2 else 1e-6, 3 * stated)
        # a derivative that is zero is so to rounding of this
        size = float(network(x, None).norm() / (x.norm() + 1e-9))
        scale = np.linalg.norm(true, axis=0) + 1e-6 * size * np.linalg.norm(V, axis=0) + 1e-9
        error = float((np.linalg.norm(found - true, axis=0) / scale).max())
        assert error <= limit, (
            f"{name}: J V off by {error:.1e}, limit {limit:.0e}, by {J.path} ({J.products.reason})"
        )
        U = np.random.default_rng(1).standard_normal((x.numel(), 3))
        try:
            back = J.T @ U
        except InputError:
            return f"right, {J.path}, J^T refused"
        gap = float(
            np.abs(U.T @ true - back.T @ V).max() / (np.linalg.norm(U, axis=0).max() * scale.max())
        )
        assert gap <= limit, (
            f"{name}: J^T U off by {gap:.1e}, limit {limit:.0e}, by {J.path} ({J.products.reason})"
        )
        return f"right, {J.path}"


@torch.no_grad()
def truth(network, x, V):
    """Return `J V` by central differences in float64, and how far two steps disagree."""
    found = []
    for h in (1e-4, 1e-5, 1e-6):
        columns = [
            (network(x + h * v, None) - network(x - h * v, None)).reshape(-1) / (2 * h)
            for v in torch.from_numpy(V.T.copy()).reshape(-1, *x.shape)
        ]
        found.append(torch.stack(columns, 1).numpy())
    gaps = [float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-300)) for a, b in pairwise(found)]
    best = int(np.argmin(gaps))
    return found[best + 1], gaps[best]


def names():
    return sorted(operators())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", names()[::10])
def test_every_tenth_operator(name):
    assert judged(name)


@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", names())
def test_every_operator(name):
    FOUND[judged(name)] += 1


@pytest.mark.zoo
@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="each process sees a part")
def test_operators_summary(capsys):
    with capsys.disabled():
        for verdict, count in FOUND.most_common():
            print(f"\n{count:5d}  {verdict}", end="")
    assert sum(FOUND.values()) > 300 or not FOUND
