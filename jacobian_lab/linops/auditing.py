"""Is this operator what it claims to be? Run before any analysis.

    report = audit(J)
    print(report)           # one line a check: figure, limit, verdict, and what to do
    bool(report)            # whether all checks pass

Each check compares J, or the network, with something computed in another way: the network called
again, alone, among others, with gradients, after another time; central differences of its output;
PyTorch's autograd. Limits follow from the precision in which the network computes and from what the
differences resolve, not from any model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.derivative.agreement import Comparison
from jacobian_lab.derivative.guards import in_training, modules_called
from jacobian_lab.derivative.linear_map import MANY
from jacobian_lab.derivative.precision import observed
from jacobian_lab.derivative.probes import probe
from jacobian_lab.derivative.settings import differentiable
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.estimates import diagonal
from jacobian_lab.linops.jacobian import JacobianOperator

Array: TypeAlias = NDArray[np.float64]
STEPS = tuple(float(h) for h in np.geomspace(1e-1, 1e-6, 16))
"""Steps of the central differences, relative to |x_t|."""
TINY = 1e-300  # for a divisor 0: nothing by nothing is 0
LINEAR = np.array([2.0, -3.0])
"""Coefficients of two vectors."""
SECANT = 1e-2
"""The size of a Newton step, relative to |x_t|."""
EXACT = 1024
"""Up to this n the posterior variances are counted on the dense J; beyond it they are estimated."""


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
    """(h, distance of F' v to the central difference relative to |F' v|) for each step, F the
    network's own output.
    """
    notes: tuple[str, ...] = ()
    """What is worth knowing and is no fault of the operator."""

    @property
    def noise(self) -> float:
        """Smallest distance over the sweep: as far as differences can confirm J."""
        return min(error for _, error in self.sweep)

    def __bool__(self) -> bool:
        return all(check.passed for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        for check in self.checks:
            if check.name == name:
                return check
        raise InputError(
            f"no check {name!r}: expected one of {', '.join(check.name for check in self.checks)}"
        )

    def __str__(self) -> str:
        step, noise = min(self.sweep, key=lambda pair: pair[1])
        lines = [
            f"products: {self.path}",
            (
                f"central differences of the network's output agree to {noise:.1e}, at h ="
                f" {step:.1e} of |x_t|"
            ),
        ]
        for c in self.checks:
            verdict = "pass" if c.passed else f"FAIL  {c.advice}"
            lines.append(
                f"  {c.name:<16}{_short(c.figure):>8}  (at most {_short(c.limit):>7})  {verdict}"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    __repr__ = __str__


def audit(J: JacobianOperator, seed: int = 0) -> Report:
    """Check a denoiser's Jacobian operator against independent computations: about 80 forward
    passes and 70 products.

    Parameters
    ----------
    J : JacobianOperator
    seed : int
        Of the random vectors.

    Returns
    -------
    Report
        With the checks "finite", "evaluation mode", "precision", "repeatable", "gradients on",
        "input", "samples apart", "derivative", "linear", "differences", "secant", "adjoint", "many
        at once" and "autograd"; and notes, of which one counts the posterior variances, the
        diagonal of J, that are negative (n more products for n up to 1,024, else some 64).

    References
    ----------
    Griewank, Walther (2008), *Evaluating derivatives*, section 3 (adjointness); Higham (2002),
    *Accuracy and stability of numerical algorithms*, section 1.14 (the step of a difference).
    """
    _require.instance("J", J, JacobianOperator, "; an audit compares it with its own network")
    seed = _require.seed(seed)
    subject = _Subject(J)
    with differentiable():
        products, sweep = _products(subject, seed)
        checks = (*_settings(subject), *_values(subject, seed), *products)
    return Report(f"{J.products.path} ({J.products.reason})", checks, sweep, _notes(subject))


class _Subject:
    """The operator, its network F at that time, and sizes of rounding."""

    def __init__(self, J: JacobianOperator) -> None:
        self.J, self.x, self.t, self.denoiser = J, J.products.x, J.products.t, J.products.denoiser
        self.ladder = J.products.ladder
        self.c_x, self.c_out = (float(c) for c in self.denoiser.coefficients(self.x, self.t))
        self.n = J.shape[0]
        self.own, self.eps = float(torch.finfo(self.x.dtype).eps), self.ladder.eps
        # differences are as far off as that
        self.loose = 10 * J.product_error if J.path.endswith("difference") else 0.0
        self.rounding = 30 * self.eps * max(float(np.sqrt(self.n)), 10.0)

    @torch.no_grad()
    def output(self, x: Tensor, t: Time | None = None) -> Tensor:
        """Return F(x, t), at the operator's time by default."""
        return self.denoiser.output(x, self.t if t is None else t)

    def tensor(self, a: Array) -> Tensor:
        """Return rows, (K, n), as images, in the dtype and on the device of x_t."""
        return torch.from_numpy(np.ascontiguousarray(a)).to(self.x).reshape(-1, *self.x.shape[1:])

    def of_network(self, Jv: Array, v: Array) -> Tensor:
        """Return F' v for rows v of products J v: what is left of them without the linear part of
        D.
        """
        scale = self.c_out if self.c_out else 1.0
        return (
            torch.from_numpy((Jv - self.c_x * v) / scale)
            .to(self.x.device)
            .reshape(-1, *self.x.shape[1:])
        )

    def cancellation(self, Jv: Array, v: Array) -> float:
        """Return the rounding of F' v that comes of J v and c_x v cancelling, relative to it."""
        network = float(np.linalg.norm(Jv - self.c_x * v)) or TINY
        return 10 * self.own * abs(self.c_x) * float(np.linalg.norm(v)) / network


def _settings(s: _Subject) -> tuple[Check, ...]:
    with torch.no_grad(), modules_called() as called:
        _, _, operations = observed(s.ladder.function, s.x)
    reasons = sorted(operations) + (
        _tensor_float() if s.x.device.type == "cuda" and s.x.dtype == torch.float32 else []
    )
    training = len(in_training(s.denoiser, called))
    return (
        Check(
            "evaluation mode",
            training,
            0,
            "modules in training mode (dropout, batch statistics): call denoiser.eval() and make"
            " the operator anew",
        ),
        Check(
            "precision",
            len(reasons),
            0,
            f"coarser than {s.x.dtype}: {', '.join(reasons)}. J is right for the network as it"
            " computes, and as rough; for more digits turn autocast, casts and TF32 off",
        ),
    )


def _values(s: _Subject, seed: int) -> tuple[Check, ...]:
    """Call the network again: after other samples and times, with gradients, among others, and look
    at its input.
    """
    value, other = (
        s.ladder.value,
        s.tensor(np.random.default_rng([seed, 1]).standard_normal((1, s.n))),
    )
    another = next(t for t in s.denoiser.schedule.times(8)[1:] if t != s.t)
    again = [s.output(s.x)]
    for x, t in ((other, s.t), (s.x, another), (s.x, s.t)):
        s.output(x, t)
        again.append(s.output(s.x))
    with torch.enable_grad():
        graph = s.denoiser.output(s.x.clone().requires_grad_(), s.t).detach()
    given = s.x.clone()
    time = s.denoiser.schedule.time_tensor(s.t).to(s.x.device)
    with torch.no_grad():
        s.denoiser.network(
            given,
            time.to(
                torch.promote_types(s.x.dtype, torch.float32) if time.is_floating_point() else None
            ).expand(1),
        )
    batch = torch.cat([s.x, s.x + other, s.x.flip(-1)])
    alone = torch.cat([s.output(one[None]) for one in batch])
    return (
        Check(
            "repeatable",
            max(_apart(a, value) for a in again),
            30 * s.own,
            "the network returns something else at another call (noise, a counter, running"
            " statistics, a cache, the time of the call before): make it deterministic",
        ),
        Check(
            "gradients on",
            _apart(graph, value),
            s.rounding,
            "the network returns something else where gradients are wanted: samplers that"
            " back-propagate use another one",
        ),
        Check(
            "input",
            _apart(given, s.x),
            0,
            "the network writes into its input: here it gets a copy, elsewhere x_t changes under"
            " its caller",
        ),
        Check(
            "samples apart",
            max(_apart(a, b) for a, b in zip(s.output(batch), alone, strict=True)),
            s.rounding,
            "samples of a batch see each other (batch statistics, attention over the batch): J is"
            " not one sample's",
        ),
    )


def _products(s: _Subject, seed: int) -> tuple[tuple[Check, ...], tuple[tuple[float, float], ...]]:
    """Compare J with differences, with its transpose, with itself on other vectors, and with
    autograd.
    """
    rng = np.random.default_rng(seed)
    V, W = rng.standard_normal((2, s.n, MANY + 1))
    V[:, 1] = probe(s.x).cpu().double().reshape(-1).numpy()
    rows = V[:, :2].T
    single = np.stack([np.asarray(s.J @ v, dtype=np.float64) for v in rows])
    comparison = Comparison(s.ladder.function, s.x, s.tensor(rows), s.eps, s.ladder.scale)
    if not s.ladder.together:
        comparison = comparison.apart()
    found = comparison.sweep(s.of_network(single, rows), tuple(h / comparison.step for h in STEPS))
    errors = (found.gaps / found.own).cpu().numpy()
    cancelled = max(s.cancellation(a, b) for a, b in zip(single, rows, strict=True))
    limit = (
        float((found.limit / found.own).max())
        + cancelled
        + (10 * s.ladder.error if s.loose else 0.0)
    )
    many, transposed = s.J @ V, _transposed(s.J, W)
    # where c_x v and the network's part cancel
    s.rounding += 10 * s.own * abs(s.c_x) * _ratio(V, many)
    checks = (
        Check(
            "finite",
            float((~np.isfinite(many)).sum()),
            0,
            "J v is not finite though D(x_t) is: a square root or logarithm at zero, or an overflow"
            " inside",
        ),
        Check(
            "derivative",
            s.ladder.disagreement,
            0,
            "a derivative that was tried disagrees with differences of the network's output: a part"
            " that PyTorch cannot see, a number read out, a cache. The path taken is the next one;"
            " see its reason",
        ),
        Check(
            "linear",
            _ratio(s.J @ (LINEAR @ rows) - LINEAR @ single, LINEAR @ single),
            3 * s.rounding + s.loose,
            "J (2 v - 3 w) is not 2 J v - 3 J w: products are no derivative",
        ),
        Check(
            "differences",
            float(errors.min(0).max()),
            limit,
            "J v disagrees with central differences at every step, by more than these differ from"
            " each other",
        ),
        _secant(s, errors, bool(found.flat.any())),
        Check(
            "adjoint",
            _ratio(W.T @ many - transposed.T @ V, W.T @ many),
            s.rounding + s.loose,
            "J^T is missing, or not the transpose of J: take both at the same x_t, time, weights"
            " and precision",
        ),
        Check(
            "many at once",
            _many(s, rng, V, many, single, W, transposed),
            10 * s.rounding + s.loose,
            "a vector among many gets another product than alone, by other kernels: take them one"
            " by one",
        ),
        _autograd(s, W[:, 0], transposed[:, 0], rows[0], single[0], limit),
    )
    return checks, tuple((h, float(e)) for h, e in zip(STEPS, errors[:, 0], strict=True))


def _secant(s: _Subject, errors: Array, flat: bool) -> Check:
    """Tell a network with steps from one that is curved: there the error falls with the square of
    the step.
    """
    size = max(SECANT, 2 * s.eps ** (1 / 3))
    near = int(np.abs(np.log(np.array(STEPS) / size)).argmin())
    figure = float(errors[near : near + 4].min(0).max())
    return Check(
        "secant",
        1.0 if flat else figure,
        0.3,
        f"a step of {size:.1g} of |x_t|, and smaller ones, change the output by something else than"
        " J says: quantisation or thresholds inside, and J tells nothing of finite steps",
    )


def _many(
    s: _Subject,
    rng: np.random.Generator,
    V: Array,
    many: Array,
    single: Array,
    W: Array,
    transposed: Array,
) -> float:
    """Return how far products of 16 and 17 vectors are off: each column counts in a combination
    that is taken alone.
    """
    c = rng.choice([-1.0, 1.0], V.shape[1])
    gaps = [
        _ratio(many[:, :2] - single.T, single.T),
        _ratio(s.J @ (V @ c) - many @ c, many @ c),
        _ratio(s.J @ V[:, :MANY] - many[:, :MANY], many[:, :MANY]),
    ]
    if np.isfinite(transposed).all():
        gaps += [
            _ratio(_transposed(s.J, W @ c) - transposed @ c, transposed @ c),
            _ratio(_transposed(s.J, W[:, :MANY]) - transposed[:, :MANY], transposed[:, :MANY]),
        ]
    return max(gaps)


def _autograd(s: _Subject, w: Array, back: Array, v: Array, Jv: Array, limit: float) -> Check:
    """Compare J^T with PyTorch's own back-propagation; where there is no J^T, J with it."""
    with torch.enable_grad():
        x = s.x.clone().requires_grad_()
        try:
            gradient = (
                torch.autograd.grad(s.denoiser(x, s.t), x, s.tensor(w[None]))[0]
                .cpu()
                .double()
                .numpy()
                .reshape(-1)
            )
        except (RuntimeError, NotImplementedError):
            gradient = np.full(s.n, np.nan)
    missing = not np.isfinite(back).all()
    figure = (
        abs(float(w @ Jv - v @ gradient)) / (_size(Jv) * _size(w))
        if missing
        else _ratio(back - gradient, back)
    )
    return Check(
        "autograd",
        figure,
        limit if missing else s.rounding + s.loose,
        "autograd's J^T is another one: an inner no_grad or detach, a value read out, a custom"
        " backward. Methods that back-propagate will use another J than this one",
    )


def _notes(s: _Subject) -> tuple[str, ...]:
    notes = (
        [f"numbers read out of what depends on x_t: {', '.join(s.ladder.linear.reads)}"]
        if (s.ladder.linear is not None and s.ladder.linear.reads)
        else []
    )
    if s.n <= EXACT:
        values, how = s.J.dense().diagonal().astype(np.float64), ""
    else:
        estimate = diagonal(s.J)
        values, how = (
            np.where(
                estimate.value < -2 * estimate.standard_error, estimate.value, abs(estimate.value)
            ),
            "at least ",
        )
    negative = int((values < 0).sum())
    if negative and np.isfinite(values).all():
        notes.append(
            f"{how}{negative:,} of {s.n:,} posterior variances (the diagonal of J) are negative,"
            f" the least of them {values.min() / values.max():.1e} of the largest: this J is no"
            " covariance"
        )
    return tuple(notes)


def _tensor_float() -> list[str]:
    """Name the settings by which CUDA's float32 has TensorFloat-32's ten bits."""
    settings = {
        "torch.backends.cuda.matmul": torch.backends.cuda.matmul.allow_tf32,
        "torch.backends.cudnn": torch.backends.cudnn.allow_tf32,
    }
    return [f"{name}.allow_tf32" for name, allowed in settings.items() if allowed]


def _transposed(J: JacobianOperator, u: Array) -> Array:
    try:
        return np.asarray(J.T @ u, dtype=np.float64)
    except InputError:  # no derivative that agrees with differences
        return np.full(u.shape, np.nan)


def _short(x: float) -> str:
    return f"{x:.0f}" if float(x).is_integer() and abs(x) < 1e6 else f"{x:.1e}"


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm()) / (float(b.double().norm()) or TINY)


def _size(a: Array) -> float:
    return float(np.linalg.norm(a)) or TINY


def _ratio(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a)) / _size(b)
