r"""The Newton step: from an error e, the change wanted in D(x_t), to a change delta of x_t.

    "inexact"    J e      one product, or one finite difference: a forward pass
    "gradient"   J^T e    one backward pass: gradient descent on |e|^2 / 2
    "exact"      J^+ e    least squares with the dense J, singular values below rcond cut off
    "krylov"     k steps of GMRES on J delta = e: k products (Jacobian-free Newton-Krylov)
    "identity"   e        nothing

A step of size lambda turns e into `e - lambda J delta` to first order: `(I - lambda J^2) e` for the
inexact direction.

Under a constraint "exact" and "krylov" solve `P J delta = e`, P what the constraint sees: the rest
of D may change. From e = P e a Krylov space of P J stays in the range of A^T, where the move that
conditions a Gaussian on y lies.

J is one Jacobian, or the block-diagonal one of a batch; `Newton` says how a sampler takes its
steps, `newton_step` takes one. Steps that move x_t lead to likely samples; `Newton.fair` leaves
x_t where it is and conditions D on y, for samples of p(x_0 | y): see
`jacobian_lab.sampling.conditional`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.observations import Map
from jacobian_lab.derivative.products import Method
from jacobian_lab.errors import InputError
from jacobian_lab.krylov.conversion import square
from jacobian_lab.krylov.least_squares import check_rcond, gmres, lstsq
from jacobian_lab.krylov.many_systems import gmres_batch
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.sampling.step_size import Dynamic, StepSize, advanced

Kind: TypeAlias = Literal["inexact", "gradient", "exact", "krylov", "identity"]
Aim: TypeAlias = Literal["likeliest", "fair"]
Values = TypeVar("Values", Tensor, NDArray[Any])


def newton_direction(
    J: LinearOperator | NDArray[Any] | BatchJacobian,
    e: Values,
    kind: Kind,
    *,
    rcond: float | None = None,
    steps: int = 10,
    seen: Map | None = None,
) -> Values:
    """Return the direction delta in which to move x_t so that D(x_t) changes by e.

    Parameters
    ----------
    J : LinearOperator or array, shape (n, n), or BatchJacobian
        Such as a `JacobianOperator`; for several exact directions at one point pass `J.dense()`.
        With a `BatchJacobian` each sample has its own direction, by its own block.
    e : Tensor or array of n entries, in any shape; for a batch a Tensor (B, *shape)
        The change wanted in D(x_t); scale as the pixels.
    kind : {"inexact", "gradient", "exact", "krylov", "identity"}
    rcond : float, optional
        For "exact": singular values up to rcond times the largest count as zero; see
        `jacobian_lab.krylov.least_squares.lstsq`.
    steps : int
        For "krylov": products spent.
    seen : callable, optional
        With a `BatchJacobian`, for "exact" and "krylov": the projection P onto what is wanted to
        change, such as `Constraint.seen`. The equation is then `P J delta = e`; without, all else
        in D is asked to stay as it is.

    Returns
    -------
    Tensor or array
        The direction, in the type, shape, dtype and device of `e`.

    Raises
    ------
    InputError
        If the kind is unknown, e has a wrong number of entries or is not finite, or `seen` comes
        without a batch.

    References
    ----------
    Graikos, Jojic, Samaras (2025), *Fast constrained sampling in pre-trained diffusion models*,
    arXiv 2410.18804. Knoll, Keyes (2004), *Jacobian-free Newton-Krylov methods*.
    """
    _require.one_of("direction", kind, get_args(Kind))
    steps, rcond = (
        _require.integer("steps", steps, 1),
        (None if rcond is None else check_rcond(rcond)),
    )
    if isinstance(J, BatchJacobian):
        return _batch_direction(
            J, e, kind, rcond, steps, (lambda change: change) if seen is None else seen
        )
    if seen is not None:
        raise InputError(
            "seen goes with a BatchJacobian: for one operator pass P J itself, such as masked rows"
            " of J.dense()"
        )
    vector = _vector(e, square(J).shape[1])
    match kind:
        case "inexact":
            delta = J @ vector
        case "gradient":
            delta = aslinearoperator(J).T @ vector
        case "exact":
            delta = lstsq(J, vector, rcond).x
        case "krylov":
            delta = gmres(J, vector, steps).x
        case "identity":
            delta = vector.copy()
    if isinstance(e, Tensor):
        return torch.from_numpy(np.array(delta)).to(e).reshape(e.shape)
    return np.asarray(delta, dtype=e.dtype).reshape(e.shape)


def _batch_direction(
    J: BatchJacobian, e: Any, kind: Kind, rcond: float | None, steps: int, seen: Map
) -> Any:
    if not isinstance(e, Tensor) or e.shape != J.x.shape:
        raise InputError(
            f"for a batch e is a tensor of the shape of x_t, {tuple(J.x.shape)}: got"
            f" {_require.shown(e)}"
        )
    _require.tensor("e", e)
    _require.function("seen", seen, "of changes of x_0")
    match kind:
        case "inexact":
            return J.jvp(e)
        case "gradient":
            return J.vjp(e)
        case "exact":
            columns = [seen(column.reshape(e.shape)).flatten(1) for column in J.dense().unbind(2)]
            blocks = torch.stack(columns, dim=2).cpu().double().numpy()
            return torch.stack(
                [
                    newton_direction(block, part, kind, rcond=rcond)
                    for block, part in zip(blocks, e, strict=True)
                ]
            )
        case "krylov":

            def product(v: NDArray[np.float64]) -> NDArray[np.float64]:
                return J.arrays(seen(J.jvp(J.images(v))))

            return J.images(gmres_batch(product, J.arrays(e), steps))
    return e.clone()


def _vector(e: Tensor | NDArray[Any], n: int) -> NDArray[np.float64]:
    """Return e as a float64 vector of n entries, or raise."""
    if not (
        e.is_floating_point()
        if isinstance(e, Tensor)
        else isinstance(e, np.ndarray) and e.dtype.kind == "f"
    ):
        raise InputError(
            f"e must be real floating point, a tensor or an array: got {_require.shown(e)}; the"
            " direction is handed back in its dtype"
        )
    vector = np.asarray(
        e.detach().cpu().double() if isinstance(e, Tensor) else e, dtype=np.float64
    ).reshape(-1)
    if len(vector) != n:
        raise InputError(
            f"e has {len(vector)} entries, shape {tuple(e.shape)}: expected {n}, one for a column"
            " of J"
        )
    _require.finite("e", vector)
    return vector


def dynamic_step_size(direction: Values, largest_change: float) -> float:
    """Return `lambda = c / max |direction|`, so that no entry of x_t moves by more than c =
    `largest_change`.

    References
    ----------
    Graikos, Jojic, Samaras (2025), the step size of the paper's algorithm.
    """
    largest_change = _require.real("largest_change", largest_change, "(0, inf)")
    if not isinstance(direction, Tensor | np.ndarray) or not math.prod(direction.shape):
        raise InputError(
            f"the direction must be a tensor or array with entries: got {_require.shown(direction)}"
        )
    if isinstance(direction, Tensor):
        _require.tensor("the direction", direction)
    elif direction.dtype.kind not in "fiu":
        raise InputError(f"the direction must be real: got {direction.dtype}")
    largest = float(abs(direction).max())
    if not np.isfinite(largest):
        raise InputError(f"the direction is not finite: its largest entry is {largest}")
    if largest == 0:
        raise InputError("the direction is zero everywhere: no step size moves x_t along it")
    return largest_change / largest


@dataclass(frozen=True)
class Newton:
    """How a sampler takes Newton steps."""

    direction: Kind = "inexact"
    steps: int = 5
    """Steps at each time."""
    step_size: StepSize = field(default_factory=Dynamic)
    products: Method = "forward"
    """How `J v` is computed: by default a forward difference, one forward pass."""
    rcond: float | None = None
    """For "exact"; see `newton_direction`."""
    krylov_steps: int = 10
    """For "krylov"; see `newton_direction`."""
    refresh: bool = True
    """Evaluate D again after a time's last step, before the sampler moves on; without, a time costs
    a forward pass less.
    """
    aim: Aim = "likeliest"
    """"likeliest": steps move x_t towards the constraint. "fair": D is conditioned on it; see
    `Newton.fair`.
    """
    tolerance: float = 0.0
    """A sample whose residual is at most that takes no more steps at this time, and costs no more
    passes: in the constraint's unit, such as the noise sigma of an observation, below which a step
    moves nothing. 0: all take all steps. `J^T u` and exact products are recorded anew, a forward
    pass, for those that remain.
    """

    def __post_init__(self) -> None:
        _require.one_of("direction", self.direction, get_args(Kind))
        _require.one_of("products", self.products, get_args(Method))
        _require.integer("steps", self.steps, 0)
        _require.integer("krylov_steps", self.krylov_steps, 1)
        _require.flag("refresh", self.refresh)
        _require.real("tolerance", self.tolerance, "[0, inf)")
        _require.one_of("aim", self.aim, get_args(Aim))
        if self.aim == "fair" and (self.steps or self.tolerance):
            raise InputError(
                f"fair samples take no steps of x_t, and none early: got steps={self.steps},"
                f" tolerance={self.tolerance}. Newton.fair() sets what they need"
            )
        if self.rcond is not None:
            check_rcond(self.rcond)
        if not callable(self.step_size):
            raise InputError(
                "step_size must be a rule of jacobian_lab.sampling.step_size: got"
                f" {self.step_size!r}; for a fixed lambda pass Fixed(lambda)"
            )

    @classmethod
    def fair(cls, krylov_steps: int = 5, products: Method = "forward") -> Newton:
        """Return the Newton of a sampler that draws from p(x_0 | y), y a linear observation with
        its noise: at each time D becomes E[x_0 | x_t, y], for `1 + krylov_steps` passes. Fair as
        far as p(x_0 | x_t) is near a Gaussian; take eta = 1 where a network approximates D.

        Parameters
        ----------
        krylov_steps : int
            Products in `jacobian_lab.sampling.conditional.conditional_mean`.
        products : {"forward", "central", "exact"}
            How `J v` is computed.
        """
        return cls("krylov", 0, products=products, krylov_steps=krylov_steps, aim="fair")


def newton_step(
    J: BatchJacobian, constraint: Constraint, newton: Newton, progress: float = 0.0
) -> Tensor:
    """Return `x_t + lambda g`, (B, *shape): one Newton step towards the constraint, each sample by
    itself.

    Parameters
    ----------
    J : BatchJacobian
        At x_t; it counts what is spent.
    constraint : Constraint
        What is wanted of D(x_t).
    newton : Newton
    progress : float
        From 0 at the sampler's first time to 1 at its last, for step sizes that fall.
    """
    for name, given, wanted in (
        ("J", J, BatchJacobian),
        ("constraint", constraint, Constraint),
        ("newton", newton, Newton),
    ):
        _require.instance(name, given, wanted)
    progress = _require.real("progress", progress, "[0, 1]")
    e = constraint.error(J.d)
    g = newton_direction(
        J, e, newton.direction, rcond=newton.rcond, steps=newton.krylov_steps, seen=constraint.seen
    )
    return advanced(J.x, newton.step_size(J, e, g, constraint, progress), g)
