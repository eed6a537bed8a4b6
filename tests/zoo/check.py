"""What is asked of every network of the zoo: the right J, in all the ways to ask for it, or a
refusal that says why.

The truth is float64: central differences of the network's own output, by three steps of which the
best pair counts, and PyTorch's forward mode where it exists and agrees with them. Where a part of
the network casts to a coarser type, the truth is that of the same network with its casts undone
(`Wide`), and the operator's own stated error is the limit.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from jacobian_lab import InputError, JacobianOperator, audit
from jacobian_lab.diffusion.prediction import coefficients
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from zoo.registry import ZOO, Entry

EXACT = 1e-6
"""Largest error of an exact product in float64, relative to |dF v|, the change of the network's own
output.
"""
SLACK = 3
"""The stated error of a path by differences is an estimate from a few vectors: within this
factor.
"""
STATED = 1e-4
"""A limit above this comes from what the operator states."""
DENSE = 256
"""Largest n of which the dense matrix is formed."""
BATCHES = (3, 17)
VECTORS = 20
CASTS = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}
STRICT = {
    "layer_norm",
    "group_norm",
    "rms_norm",
    "batch_norm",
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "matmul",
    "bmm",
    "baddbmm",
    "scaled_dot_product_attention",
    "embedding",
}
"""Functions whose tensors must all be of one type."""
COARSE = {torch.float32: 5e-7, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@dataclass
class Verdict:
    """What was found of one network."""

    name: str
    verdict: str = "right"
    """"right", "refused", "told" (a number with a warning, or none), "wrong" or "traceback"."""
    path: str = "-"
    error: float = 0.0
    """Largest error of J v or J^T u, relative to |dF v|."""
    stated: float | None = None
    reason: str = ""
    coarsest: float = 0.0
    batch: str = "-"
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str, kind: str = "wrong") -> None:
        self.faults.append(what)
        if self.verdict != "traceback":
            self.verdict = kind


class Wide(TorchFunctionMode):
    """Undoes casts to less than float64 of what depends on x, and notes the coarsest type that was
    asked for.
    """

    def __init__(self):
        super().__init__()
        self.coarsest = 0.0
        self.dependent: Any = WeakIdKeyDictionary()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if not any(
            isinstance(a, Tensor) and a in self.dependent for a in tree_leaves((args, kwargs))
        ):
            return func(*args, **kwargs)
        name, first = (
            getattr(func, "__name__", ""),
            (args[0] if args else next(iter(kwargs.values()))),
        )
        if isinstance(first, Tensor) and first.is_floating_point():
            if name in CASTS:
                self._note(CASTS[name], first)
                func, args, kwargs = Tensor.double, (first,), {}
            args = tuple(self._widened(a, first) for a in args)
            kwargs = {key: self._widened(a, first) for key, a in kwargs.items()}
            if name in STRICT and first.dtype == torch.float64:
                args = tuple(self._alike(a) for a in args)
                kwargs = {key: self._alike(a) for key, a in kwargs.items()}
        out = func(*args, **kwargs)
        for tensor in (*tree_leaves(out), first):
            if isinstance(tensor, Tensor):
                self.dependent[tensor] = None
        return out

    def _widened(self, a, tensor):
        if isinstance(a, torch.dtype) and a in COARSE:
            self._note(a, tensor)
            return torch.float64
        return a

    @staticmethod
    def _alike(a):
        return a.double() if isinstance(a, Tensor) and a.dtype in COARSE else a

    def _note(self, dtype, tensor):
        if tensor.dtype == torch.float64:
            self.coarsest = max(self.coarsest, COARSE[dtype])


class Truth:
    """`dF v` of the network's raw output, in float64."""

    def __init__(self, entry: Entry) -> None:
        self.entry, self.denoiser = entry, entry.denoiser(twin=True)
        self.wide, self.gap, self.apart = Wide(), 0.0, True
        x = _samples(entry, 2)
        together, alone = self.raw(x), torch.cat([self.raw(one[None]) for one in x])
        self.apart = bool((together - alone).norm() < 1e-9 * alone.norm() + 1e-12)

    def raw(self, x: Tensor) -> Tensor:
        """Return F(x), a tensor whatever the network wraps it in; sample by sample where they see
        each other.
        """
        if not self.apart and len(x) > 1:
            return torch.cat([self.raw(one[None]) for one in x])
        t = self.denoiser.schedule.time_tensor(self.entry.t)
        t = t.to(x.dtype) if t.is_floating_point() else t
        self.wide.dependent[x] = None
        # Dynamo does not trace through a mode of ours
        wide = nullcontext() if self.entry.compiled else self.wide
        with wide, sdpa_kernel(SDPBackend.MATH):
            out = self.denoiser.network(x, t.expand(len(x)))
        if not isinstance(out, Tensor):
            out = (
                out["sample"]
                if isinstance(out, dict)
                else out[0]
                if isinstance(out, tuple)
                else out.sample
            )
        return out.as_subclass(Tensor).to(torch.float64)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Return `dF_b v_b` for each sample b, by differences; by forward mode where it agrees with
        them.
        """
        difference, gap = self._differences(x, v)
        self.gap = max(self.gap, gap)
        # where forward mode kills the process, it must not be the test that does so
        if self.entry.isolated:
            return difference
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exact = torch.func.jvp(self.raw, (x,), (v,))[1].detach()
        except Exception:  # networks without a forward mode raise anything
            return difference
        if (exact - difference).norm() <= max(20 * gap, 1e-7) * difference.norm() + 1e-12:
            return exact
        return difference

    @torch.no_grad()
    def _differences(self, x: Tensor, v: Tensor) -> tuple[Tensor, float]:
        size = x.flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1).clamp(min=1e-300)
        found = []
        for h in (1e-4, 1e-5, 1e-6):
            s = (h * size).reshape(-1, 1, 1, 1)
            found.append((self.raw(x + s * v) - self.raw(x - s * v)) / (2 * s))
        gaps = [float((a - b).norm() / (b.norm() + 1e-300)) for a, b in pairwise(found)]
        best = int(np.argmin(gaps))
        return found[best + 1], gaps[best]


def check(name: str) -> Verdict:
    """Return the verdict on one network: J v of 1 and 20 vectors, J^T u, the dense matrix, batches
    of 3 and 17.
    """
    entry, verdict = ZOO[name], Verdict(name)
    try:
        truth = Truth(entry)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = _samples(entry, max(BATCHES))
            one = truth.raw(x[:1])
    except Exception as error:  # the test's own fault, not the library's
        raise AssertionError(
            f"the zoo cannot run {name} itself: {type(error).__name__}: {error}"
        ) from error
    assert one.isfinite().all(), f"{name} is not finite"
    _operator(entry, truth, x[:1], verdict)
    for batch in BATCHES:
        _batch(entry, truth, x[:batch], verdict)
    verdict.coarsest = truth.wide.coarsest
    return verdict


def _samples(entry: Entry, count: int) -> Tensor:
    return torch.randn(
        count, *entry.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def _heard(function):
    """Call; return (result, refusal, warnings of jacobian_lab, traceback)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, refusal, trace = function(), "", ""
        except InputError as error:
            result, refusal, trace = None, str(error).split("\n")[0], ""
        except MemoryError:
            raise
        except Exception as error:  # whatever else comes is the finding
            result, refusal, trace = None, "", f"{type(error).__name__}: {str(error)[:160]}"
    said = [
        str(w.message)
        for w in caught
        if "Derivative" in w.category.__name__ or "jacobian_lab" in str(w.category)
    ]
    return result, refusal, said, trace


def _operator(entry: Entry, truth: Truth, x: Tensor, verdict: Verdict) -> None:
    J, refusal, said, trace = _heard(lambda: JacobianOperator(entry.denoiser(), x, entry.t))
    if trace:
        return verdict.fault(f"JacobianOperator: {trace}", "traceback")
    if refusal:
        verdict.verdict, verdict.path, verdict.reason = "refused", "refused", refusal
        return None
    verdict.path, verdict.reason, verdict.stated = J.path, J.products.reason, J.product_error
    if entry.outcome == "audited":
        verdict.verdict = "told"
        reports = (audit(J, seed) for seed in range(5))
        return None if not all(reports) else verdict.fault("audit passes five times")
    if entry.outcome == "told":
        verdict.verdict = "told"
        _, refusal, also, _ = _heard(lambda: J @ np.ones(J.shape[1], dtype=J.dtype))
        return (
            None
            if said or also or refusal
            else verdict.fault("a number without a word: expected a warning or InputError")
        )
    V = torch.randn(
        VECTORS, *entry.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    V[1], V[2] = x[0], 1.0  # what random vectors hardly see: an error of rank one
    dF = truth.jvp(x.expand(VECTORS, -1, -1, -1).clone(), V)
    limit, columns = _limit(verdict, truth), V.flatten(1).T.numpy().astype(J.dtype)
    doors = [("J v", 1, lambda: J @ columns[:, :1]), ("J V", VECTORS, lambda: J @ columns)]
    if J.shape[0] <= DENSE:
        doors.append(("dense", VECTORS, lambda: J.dense() @ columns))
    for label, count, product in doors:
        found, refusal, _, trace = _heard(product)
        if trace:
            verdict.fault(f"{label}: {trace}", "traceback")
        elif refusal:
            verdict.reason += f"; {label} refused: {refusal}"
            verdict.verdict = (
                "refused" if label != "dense" and verdict.verdict == "right" else verdict.verdict
            )
        else:
            _compare(
                verdict, label, _raw(entry, _images(found, entry), V[:count]), dF[:count], limit
            )
    return _transposed(entry, truth, J, x, V, dF, limit, verdict)


def _images(columns, entry: Entry) -> Tensor:
    return torch.from_numpy(np.asarray(columns, dtype=np.float64).T.copy()).reshape(
        -1, *entry.shape
    )


def _raw(entry: Entry, product: Tensor, v: Tensor) -> Tensor:
    """Return `dF v` or `dF^T v` that a product with `J = c_x + c_out dF` implies."""
    denoiser = entry.denoiser()
    c_x, c_out = (float(c) for c in coefficients(entry.prediction, *denoiser.schedule(entry.t)))
    return (product.to(torch.float64) - c_x * v) / c_out


def _transposed(entry, truth, J, x, V, dF, limit, verdict) -> None:
    """Hold `J^T u` against `<u, J v>` with the true `J v`: random u, x, a constant, and what `J v`
    shows most.
    """
    U = torch.cat(
        [V[:4], dF[:2] / dF[:2].flatten(1).norm(dim=1).clamp(min=1e-300).reshape(-1, 1, 1, 1)]
    )
    back, refusal, _, trace = _heard(lambda: J.T @ U.flatten(1).T.numpy().astype(J.dtype))
    if trace:
        return verdict.fault(f"J^T U: {trace}", "traceback")
    if refusal:
        verdict.reason += f"; J^T refused: {refusal}"
        return None
    back = _raw(entry, _images(back, entry), U)
    inner = back.flatten(1) @ V.flatten(1).T - U.flatten(1) @ dF.flatten(1).T
    size = U.flatten(1).norm(dim=1)[:, None] * _sizes(dF, V)[None]
    error = float((inner.abs() / size).max())
    verdict.error = max(verdict.error, error)
    if not error <= limit:
        verdict.fault(f"J^T U: <J^T u, v> off by {error:.1e} (limit {limit:.0e})")
    autograd = _autograd(entry, x, U)
    if autograd is not None:
        consistent = (
            float(
                (
                    (autograd.flatten(1) @ V.flatten(1).T - U.flatten(1) @ dF.flatten(1).T).abs()
                    / size
                ).max()
            )
            < 1e-7
        )
        if consistent:  # autograd's own J^T is that of the truth
            _compare(verdict, "J^T u against autograd", back, autograd, limit)
    return None


def _autograd(entry: Entry, x: Tensor, U: Tensor) -> Tensor | None:
    truth = Truth(entry)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            z = x.expand(len(U), -1, -1, -1).clone().requires_grad_()
            return torch.autograd.grad(truth.raw(z), z, U)[0]
    except Exception:  # no backward
        return None


def _batch(entry: Entry, truth: Truth, x: Tensor, verdict: Verdict) -> None:
    """Ask the sampler's door, `BatchJacobian`, for a product of each kind; compare three samples of
    the batch.
    """
    label = f"batch of {len(x)}"
    v, w = (
        torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in (3, 4)
    )
    J, refusal, said, trace = _heard(
        lambda: BatchJacobian(entry.denoiser(), x, entry.t, products="exact")
    )
    some, products = [0, len(x) // 2, len(x) - 1], {}
    for which in ("jvp", "vjp"):
        if not refusal and not trace:
            products[which], refusal, also, trace = _heard(lambda which=which: getattr(J, which)(v))
            said = said + also
    if trace:
        return verdict.fault(f"{label}, after {len(products)} products: {trace}", "traceback")
    verdict.batch = f"refused: {refusal[:80]}" if refusal else "right"
    if entry.outcome == "audited":
        return None
    if entry.outcome == "told":
        return None if said or refusal else verdict.fault(f"{label}: a number without a word")
    limit = _limit(verdict, truth)
    if J is not None and "difference" in J.path:
        limit = max(limit, SLACK * J.product_error)
    if products.get("jvp") is not None:
        dF = truth.jvp(x[some], v[some])
        _compare(verdict, f"{label} J v", _raw(entry, products["jvp"], v)[some], dF, limit)
    if products.get("vjp") is not None:
        back, dF = _raw(entry, products["vjp"], v)[some], truth.jvp(x[some], w[some])
        size = v[some].flatten(1).norm(dim=1) * _sizes(dF, w[some])
        error = float(((back * w[some] - v[some] * dF).flatten(1).sum(1).abs() / size).max())
        verdict.error = max(verdict.error, error)
        if not error <= limit:
            verdict.fault(f"{label} J^T u: <J^T u, v> off by {error:.1e} (limit {limit:.0e})")
    return None


def _limit(verdict: Verdict, truth: Truth) -> float:
    """Return the largest error allowed: rounding, or the stated error where the path or the network
    is coarser.
    """
    limit = max(EXACT, 20 * truth.gap if truth.gap < 1e-3 else EXACT)
    coarse = truth.wide.coarsest > 0 or truth.entry.twin is not None
    if verdict.stated is not None and (coarse or "difference" in verdict.path):
        return max(limit, SLACK * float(verdict.stated))
    return max(limit, 20 * truth.wide.coarsest)


def _sizes(products: Tensor, vectors: Tensor) -> Tensor:
    """Return |dF v| for each vector, at least a thousandth of the largest |dF v| / |v|: what
    vanishes is so to rounding.
    """
    found, given = products.flatten(1).norm(dim=1), vectors.flatten(1).norm(dim=1).clamp(min=1e-300)
    return torch.maximum(found, 1e-3 * (found / given).max() * given) + 1e-12


def _compare(verdict: Verdict, label: str, found: Tensor, true: Tensor, limit: float) -> None:
    """Note the largest error of a vector, relative to the true product (and to the largest of them
    where it vanishes).
    """
    norms = true.flatten(1).norm(dim=1)
    error = float(
        ((found - true).flatten(1).norm(dim=1) / (norms + 1e-3 * norms.max() + 1e-9)).max()
    )
    if limit > STATED:  # a stated error is one of all vectors together
        error = float((found - true).norm() / (true.norm() + 1e-9))
    verdict.error = max(verdict.error, error) if error == error else float("inf")
    if not error <= limit:
        verdict.fault(f"{label}: off by {error:.1e} (limit {limit:.0e})")


def load() -> None:
    """Enter all builders."""
    for file in sorted(Path(__file__).parent.glob("builders_*.py")):
        importlib.import_module(f"zoo.{file.stem}")


# python -m zoo.check NAME ...: a verdict a line, as JSON, in a process that may die
if __name__ == "__main__":
    from zoo.check import check as checked  # the registered classes, not this module's own

    load()
    torch.set_num_threads(1)
    for given in sys.argv[1:]:
        print(json.dumps(asdict(checked(given))), flush=True)
