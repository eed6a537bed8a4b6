"""Is this operator what it claims to be? Run before any analysis.

    report = audit(J)
    print(report)           # one line a check: figure, limit, verdict, and what to do
    bool(report)            # whether all checks pass

Each check compares J with something computed in another way: the denoiser itself, central differences, PyTorch's autograd.
Limits follow from the precision of x_t and the cancellation in D, not from any model. Where the operator itself takes
central differences, "differences" compares two steps of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from jacobian_lab.denoiser import coefficients
from jacobian_lab.errors import InputError
from jacobian_lab.linear import MANY
from jacobian_lab.linops import JacobianOperator
from jacobian_lab.products import differentiable

Array: TypeAlias = NDArray[np.float64]
STEPS = tuple(float(h) for h in np.geomspace(1e-6, 1e-1, 16))
"""Steps of the central differences, relative to |x_t|."""
TINY = 1e-300  # for a divisor 0: nothing by nothing is 0
SECANT = STEPS[12]
"""One hundredth: the size of a Newton step."""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    figure: float
    limit: float
    advice: str
    """What is probably wrong, and what to do, if it fails."""

    @property
    def passed(self) -> bool:
        """Whether the figure is within its limit (a NaN is not)."""
        return bool(self.figure <= self.limit)


@dataclass(frozen=True)
class Report:
    """The checks; true if all pass, and printed as a table."""

    path: str
    """How `J v` is computed, and why."""
    checks: tuple[Check, ...]
    sweep: tuple[tuple[float, float], ...]
    """(h, error of the central difference relative to |J v|) for each step."""

    @property
    def noise(self) -> float:
        """Smallest error over the sweep: as far as differences can confirm J."""
        return min(error for _, error in self.sweep)

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise InputError(f"no check {name!r}: expected one of {', '.join(check.name for check in self.checks)}")

    def __str__(self) -> str:
        step, noise = min(self.sweep, key=lambda pair: pair[1])
        lines = [f"products: {self.path}", f"central differences agree to {noise:.1e} of |J v|, at h = {step:.1e} of |x_t|"]
        for c in self.checks:
            verdict = "pass" if c.passed else f"FAIL  {c.advice}"
            lines.append(f"  {c.name:<16}{_short(c.figure):>8}  (at most {_short(c.limit):>7})  {verdict}")
        return "\n".join(lines)

    __repr__ = __str__


def audit(J: JacobianOperator, seed: int = 0) -> Report:
    """Check a denoiser's Jacobian operator against independent computations: about 80 forward passes.

    Parameters
    ----------
    J : JacobianOperator
    seed : int
        Of the random vectors.

    Returns
    -------
    Report
        With the checks "finite", "evaluation mode", "precision", "repeatable", "samples apart", "linear", "differences",
        "secant", "adjoint", "many at once" and "autograd".

    References
    ----------
    Griewank, Walther (2008), *Evaluating derivatives*, section 3 (adjointness); Higham (2002), *Accuracy and stability of
    numerical algorithms*, section 1.14 (the step of a difference).
    """
    x = J.products.x
    eps, n = float(torch.finfo(x.dtype).eps), J.shape[0]
    v, w = np.random.default_rng(seed).standard_normal((2, n))
    Jv, Jw = (np.asarray(J @ x, dtype=np.float64) for x in (v, w))
    sweep = tuple((h, _ratio(_difference(J, v, h) - Jv, Jv)) for h in STEPS)
    h, noise = min(sweep, key=lambda pair: pair[1])
    c_x = float(coefficients(J.products.denoiser.prediction, *J.products.denoiser.schedule(J.products.t))[0])
    floor = eps * c_x * _size(v) / _size(Jv)  # the rounding where c_x v and the network's part cancel
    rounding = max(30 * eps * np.sqrt(n), 300 * eps, 10 * floor)
    loose = {"forward difference": 10, "central difference": 2}.get(J.products.path, 1)
    limit = loose * max(3 * eps ** (1 / 2), 10 * floor / (J.products.step or eps ** (1 / 3)))
    difference = _difference(J, v, h)
    u = Jv / _size(Jv)  # the direction in which an error of J^T shows most
    back, gradient = _transposed(J, u), _autograd(J, u)
    V, U = (np.column_stack([a, np.random.default_rng(seed + 1).standard_normal((n, MANY - 1))]) for a in (v, u))
    together = max(_ratio((J @ V)[:, 0] - Jv, Jv), 0 if np.isnan(back).any() else _ratio((J.T @ U)[:, 0] - back, back))
    differences = "difference" in J.products.path
    checks = (
        Check("finite", float((~np.isfinite(Jv)).sum()), 0,
              "J v is not finite though D(x_t) is: a square root or logarithm at zero, or an overflow inside"),
        *_settings(J),
        *_values(J, w, eps * (10 * np.sqrt(n) + 10 * c_x * float(x.norm()) / _size(_evaluate(J, x)))),
        Check("linear", _ratio(J @ (2 * v - 3 * w) - 2 * Jv + 3 * Jw, 2 * Jv - 3 * Jw),
              10 * (noise if differences else rounding), "J (2 v - 3 w) is not 2 J v - 3 J w: products are no derivative"),
        Check("differences", noise, limit,
              "J v disagrees with central differences at every step: rounding or noise inside the network"),
        Check("secant", dict(sweep)[SECANT], 0.3,
              f"a step of {SECANT:g} of |x_t| changes D by something else than J says: quantisation or thresholds inside, and "
              "J tells nothing of finite steps"),
        Check("adjoint", abs(float(u @ Jv - v @ back)) / _size(Jv), 10 * noise + rounding if differences else rounding,
              "J^T is missing, or not the transpose of J: take both at the same x_t, time, weights and precision"),
        Check("many at once", together, 10 * (noise + rounding if differences else rounding),
              "a vector among many gets another product than alone, by other kernels: take them one by one"),
        Check("autograd", abs(float(u @ difference - v @ gradient)) / _size(difference), limit,
              "autograd's J^T disagrees with differences: an inner no_grad or detach, a value read out, a custom backward. "
              "Methods that back-propagate will use another J than this one"),
    )
    return Report(f"{J.products.path} ({J.products.reason})", checks, sweep)


def _settings(J: JacobianOperator) -> tuple[Check, ...]:
    denoiser, x, t = J.products.denoiser, J.products.x, J.products.t
    with torch.no_grad(), _Coarse(x) as coarse:
        denoiser(x, t)
    reasons = sorted(coarse.operations) + (_tensor_float() if x.device.type == "cuda" and x.dtype == torch.float32 else [])
    training = sum(module.training for module in denoiser.modules() if module is not denoiser)
    return (
        Check("evaluation mode", training, 0,
              "modules in training mode (dropout, batch statistics): call denoiser.eval() and make the operator anew"),
        Check("precision", len(reasons), 0,
              f"coarser than {x.dtype}: {', '.join(reasons)}. Turn autocast, casts and TF32 off"),
    )


def _values(J: JacobianOperator, w: Array, rounding: float) -> tuple[Check, ...]:
    x = J.products.x
    first, change = _evaluate(J, x)[0], _evaluate(J, x)[0] - _evaluate(J, x)[0]
    others = torch.cat([x, x + _tensor(J, w), x.flip(-1)])
    alone = np.concatenate([_evaluate(J, one[None]) for one in others])
    return (
        Check("repeatable", _ratio(change, first), rounding / 10,
              "the network returns something else each time (noise, a counter, running statistics): make it deterministic"),
        Check("samples apart", _ratio(_evaluate(J, others) - alone, alone), rounding,
              "samples of a batch see each other (batch statistics, attention over the batch): J is not one sample's"),
    )


class _Coarse(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations on what depends on x whose results have fewer digits than x."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.eps = torch.finfo(x.dtype).eps
        self.operations: set[str] = set()
        self.dependent: Any = WeakIdKeyDictionary({x: None})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        if any(isinstance(a, Tensor) and a in self.dependent for a in tree_leaves((args, kwargs))):
            for tensor in tree_leaves(out):
                if isinstance(tensor, Tensor) and tensor.is_floating_point():
                    self.dependent[tensor] = None
                    if torch.finfo(tensor.dtype).eps > self.eps:
                        self.operations.add(f"{func.overloadpacket.__name__} in {str(tensor.dtype).removeprefix('torch.')}")
        return out


def _tensor_float() -> list[str]:
    """Name the settings by which CUDA's float32 has TensorFloat-32's ten bits."""
    settings = {"torch.backends.cuda.matmul": torch.backends.cuda.matmul.allow_tf32,
                "torch.backends.cudnn": torch.backends.cudnn.allow_tf32}
    return [f"{name}.allow_tf32" for name, allowed in settings.items() if allowed]


def _transposed(J: JacobianOperator, u: Array) -> Array:
    try:
        return np.asarray(J.T @ u, dtype=np.float64)
    except InputError:  # no derivative that agrees with differences
        return np.full(len(u), np.nan)


def _autograd(J: JacobianOperator, u: Array) -> Array:
    """Return `J^T u` by PyTorch's own back-propagation; NaN where the network has none."""
    with differentiable():
        x = J.products.x.clone().requires_grad_()
        try:
            gradient, = torch.autograd.grad(J.products.denoiser(x, J.products.t), x, _tensor(J, u))
        except (RuntimeError, NotImplementedError):
            return np.full(len(u), np.nan)
    return np.asarray(gradient.cpu().double().numpy()).reshape(-1)


def _difference(J: JacobianOperator, v: Array, h: float) -> Array:
    """Return the central difference along v whose step has the length h |x_t|."""
    x = J.products.x
    s = h * (float(x.norm()) or 1.0) / _size(v)
    ahead, behind = _evaluate(J, torch.cat([x + s * _tensor(J, v), x - s * _tensor(J, v)]))
    return np.asarray((ahead - behind) / (2 * s))


@torch.no_grad()
def _evaluate(J: JacobianOperator, x: Tensor) -> Array:
    return np.asarray(J.products.denoiser(x, J.products.t).cpu().double().numpy()).reshape(len(x), -1)


def _tensor(J: JacobianOperator, a: Array) -> Tensor:
    return torch.from_numpy(a).to(J.products.x).reshape(J.products.x.shape)


def _short(x: float) -> str:
    return f"{x:.0f}" if float(x).is_integer() and abs(x) < 1e6 else f"{x:.1e}"


def _size(a: Array) -> float:
    return float(np.linalg.norm(a)) or TINY


def _ratio(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a)) / _size(b)
