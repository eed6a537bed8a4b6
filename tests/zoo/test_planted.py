"""Planted faults: no number is handed out wrong with a certificate; and healthy twins: no false
alarm.

For each fault and both plain networks, one of the outcomes must come that `planted.py` calls
honest:

    refused      InputError, when the operator is made or when it is used
    right        J V and J^T U agree with differences in float64, within the stated error
    a check      `audit` fails, by one of the checks that are named

    pytest -m exhaustive tests/zoo/test_planted.py
"""

import warnings

import numpy as np
import pytest
import torch

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, JacobianOperator, audit
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from zoo.planted import FAULTS, HEALTHY, SHAPES, plain

DTYPES = {"conv": torch.float64, "unet": torch.float32}
LIMIT = {torch.float64: 1e-6, torch.float32: 1e-4}
SLACK = 3
RESOLVED = 3e-3
"""An exact path is compared with differences: a stated error above what those can resolve is no
statement.
"""
T = 500
CASES = [(kind, name) for name in FAULTS for kind in SHAPES]
TWINS = [(kind, name) for name in HEALTHY for kind in SHAPES]


def denoiser(kind, spoil, dtype=None):
    net = plain(kind, dtype or DTYPES[kind])
    return Denoiser(spoil(net), DiscreteSchedule.linear(), "v", SHAPES[kind]), net


def samples(kind, count=1):
    x = torch.randn(
        count, *SHAPES[kind], generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return x.to(DTYPES[kind])


def vectors(kind, x):
    """Return 16 and 17 columns' worth of random vectors, with x and a constant among them."""
    V = np.random.default_rng(0).standard_normal((x.numel(), 17))
    V[:, 1], V[:, 2] = x.double().reshape(-1), 1.0
    return V


@torch.no_grad()
def truth(kind, fault, x, V):
    """Return J V of the fault's twin, by central differences in float64 of one sample at a time."""
    d, _ = denoiser(kind, fault.twin or fault.spoil, torch.float64)
    found = []
    for h in (1e-4, 1e-5):
        steps = torch.from_numpy(V.T.copy()).reshape(-1, *x.shape)
        found.append(
            torch.stack(
                [
                    ((d(x.double() + h * s, T) - d(x.double() - h * s, T)) / (2 * h)).reshape(-1)
                    for s in steps
                ],
                1,
            )
        )
    gap = float((found[0] - found[1]).norm() / found[1].norm())
    return found[1].numpy(), gap


def outcome(kind, name):
    """Return what happened, "refused", "right" or the failed checks of audit, and a sentence about
    it.
    """
    fault = FAULTS[name]
    x = samples(kind)
    V = vectors(kind, x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        d, net = denoiser(kind, fault.spoil)
        given = x.clone()
        try:
            J = JacobianOperator(d, given, T)
            if fault.after is not None:
                fault.after(net)
            U = np.random.default_rng(1).standard_normal((x.numel(), 17)).astype(J.dtype)
            first, many = (
                J @ V[:, 0].astype(J.dtype),
                [J @ V[:, :k].astype(J.dtype) for k in (16, 17)],
            )
        except InputError as error:
            assert torch.equal(given, x), f"{name}: refused, but the caller's x_t was changed"
            return {"refused"}, str(error)
        assert torch.equal(given, x), f"{name}: the caller's x_t was changed without a word"
        try:
            back = J.T @ U
        except InputError:
            back = None
    path = J.path
    said = [str(w.message)[:80] for w in caught if "Derivative" in w.category.__name__]
    error = float("inf")
    if "right" in fault.expect or fault.after:
        true, gap = truth(kind, fault, x, V)
        limit = max(LIMIT[DTYPES[kind]], 20 * gap if gap < 1e-3 else 0)
        stated = SLACK * J.product_error
        limit = max(
            limit,
            stated if "difference" in path or fault.twin is not None else min(stated, RESOLVED),
        )
        error = max(
            float(np.linalg.norm(found - true[:, :k]) / np.linalg.norm(true[:, :k]))
            for found, k in ((first[:, None], 1), *zip(many, (16, 17), strict=True))
        )
        if back is not None:
            sizes = np.linalg.norm(U, axis=0)[:, None] * np.linalg.norm(true, axis=0)
            error = max(error, float((np.abs(U.T @ true - back.T @ V) / sizes).max()))
        if error <= limit:
            return {"right"}, f"by {path}, error {error:.1e}, limit {limit:.0e}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            report = audit(J)
        except InputError as refusal:
            return {"refused"}, str(refusal)
    failed = {check.name for check in report.checks if not check.passed}
    return (
        failed,
        f"by {path}, error {error:.1e}, warnings {said}, audit fails {sorted(failed) or 'nothing'}",
    )


def honest(kind, name):
    found, sentence = outcome(kind, name)
    if not found & FAULTS[name].expect:
        pytest.fail(
            f"{name} of {kind}: {sentence}; expected one of {sorted(FAULTS[name].expect)}",
            pytrace=False,
        )


def no_false_alarm(kind, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        d, _ = denoiser(kind, HEALTHY[name].spoil)
        x = samples(kind)
        J = JacobianOperator(d, x, T)
        report = audit(J)
    assert report, f"{name} of {kind}:\n{report}"
    V = vectors(kind, x)
    true, gap = truth(kind, HEALTHY[name], x, V)
    found = J @ V.astype(J.dtype)
    assert np.linalg.norm(found - true) < max(LIMIT[DTYPES[kind]], 20 * gap) * np.linalg.norm(true)


def batch_is_honest(kind, name):
    """The sampler's door: a batch of 3 by "exact" is right for each sample, or refused."""
    fault = FAULTS[name]
    x = samples(kind, 3)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(x)
    given = x.clone()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            J = BatchJacobian(denoiser(kind, fault.spoil)[0], given, T, products="exact")
            forward = J.jvp(v)
        except InputError:
            forward = None
        try:
            backward = None if forward is None else J.vjp(v)
        except InputError:
            backward = None
    assert torch.equal(given, x), f"{name}: the caller's batch was changed"
    if forward is None:
        return
    assert "right" in fault.expect, (
        f"{name} of {kind}: a batch product of a network that is no function of one sample"
    )
    stated = J.product_error
    for i in range(3):
        true, gap = truth(kind, fault, x[i : i + 1], v[i].double().reshape(-1, 1).numpy())
        limit = max(LIMIT[DTYPES[kind]], 20 * gap if gap < 1e-3 else 0, SLACK * stated)
        error = np.linalg.norm(forward[i].double().reshape(-1, 1).numpy() - true) / np.linalg.norm(
            true
        )
        assert error <= limit, f"{name} of {kind}: batch J v off by {error:.1e}"
        if backward is not None:
            inner = float((backward[i].double() * v[i].double()).sum()) - float(
                v[i].double().reshape(-1).numpy() @ true[:, 0]
            )
            error = abs(inner) / (float(v[i].double().norm()) * np.linalg.norm(true))
            assert error <= limit, f"{name} of {kind}: batch J^T u off by {error:.1e}"


# the first product of a batch is right: only a later call at that shape is another function
LATER = ("cache_of_the_shape",)
BATCHED = [
    (kind, name)
    for kind, name in CASES
    if FAULTS[name].after is None and not FAULTS[name].twin and name not in LATER
]
quiet = pytest.mark.filterwarnings("ignore")  # of packages; the test listens by itself


@quiet
@pytest.mark.parametrize(("kind", "name"), CASES[::10])
def test_a_tenth_of_the_faults(kind, name):
    honest(kind, name)


@quiet
@pytest.mark.parametrize(("kind", "name"), BATCHED[5::10])
def test_a_tenth_of_the_faults_in_batches(kind, name):
    batch_is_honest(kind, name)


@quiet
@pytest.mark.parametrize(("kind", "name"), TWINS[::10])
def test_a_tenth_of_the_healthy(kind, name):
    no_false_alarm(kind, name)


@quiet
@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_fault(kind, name):
    honest(kind, name)


@quiet
@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "name"), BATCHED)
def test_every_fault_in_batches(kind, name):
    batch_is_honest(kind, name)


@quiet
@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "name"), TWINS)
def test_every_healthy_one(kind, name):
    no_false_alarm(kind, name)


def test_there_are_enough_of_both():
    assert len(FAULTS) >= 60
    assert len(HEALTHY) >= 30
