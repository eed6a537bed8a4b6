r"""Products with the Jacobian `J = dD/dx_t` at a fixed point: `J v` and `J^T u` for batches of
vectors.

    "exact"      the network is recorded once as linear maps; a product applies them,
                 for about one forward pass
    "forward"    (F(x + h v) - F(x)) / h: one forward pass; error O(h) + O(eps / h)
    "central"    (F(x + h v) - F(x - h v)) / (2 h), two passes; error O(h^2) + O(eps / h)

The network's own output F is differentiated, and `D = c_x x + c_out F`. For "exact", a network that
cannot be recorded falls back on PyTorch's derivatives, then on differences;
`jacobian_lab.derivative.ladder` chooses and checks. `path`, `reason` and `error` say what came of
it. `J^T u` is exact in any case.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.derivative.guards import GAIN, check_base, check_run
from jacobian_lab.derivative.ladder import Ladder
from jacobian_lab.derivative.probes import probe
from jacobian_lab.derivative.settings import autocast_here, differentiable, under
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import InputError

Method: TypeAlias = Literal["exact", "forward", "central"]


class Products:
    """Products with `J = dD/dx_t` at one point (x_t, t).

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode.
    x_t : Tensor, shape (1, *shape) or shape
    t : int or float
        Time of the denoiser's schedule.
    method : {"exact", "forward", "central"}
        How `jvp` is computed; `vjp` is always exact.
    step : float, optional
        Step h of the finite differences, relative to the size of x_t; see
        `jacobian_lab.derivative.fallbacks.Differences`.
    memory : int, optional
        Bytes that the vectors of one pass may take, also of the check; more vectors are more
        passes. What is recorded of the network, at most the activations of one sample a few times
        over, comes on top, and blocks of attention: 8 MB on the CPU, 512 MB elsewhere.

    Attributes
    ----------
    x : Tensor, shape (1, *shape)
        The point, detached.
    d : Tensor, shape (1, *shape)
        The primal value `D(x_t, t)`.
    autocast : tuple of (str, dtype)
        PyTorch's autocast where this was made: the network runs under it whenever it is run.
    path : str
        How `jvp` is computed: "linearised", "double backward", "forward mode", "central
        difference", "forward difference".
    reason : str
        Why.
    error : float
        Distance of `J v` to central differences where it was checked, relative to |J v|: how far
        differences confirm it. Once `J^T` was asked for, the larger of this and its distance to J.
    step : float or None
        Of the differences, where it is they that are taken.

    Raises
    ------
    InputError
        If x_t is not one sample or not finite, the network is in training mode or gives another
        output at each call, or its output is not finite.

    Warns
    -----
    DerivativeWarning
        If exact products were asked for and differences are what is left, or the derivative is zero
        where the output is not constant.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Time,
        method: Method = "exact",
        step: float | None = None,
        memory: int | None = None,
    ) -> None:
        _require.instance(
            "denoiser",
            denoiser,
            Denoiser,
            "; make one by Denoiser(network, schedule, prediction, shape)",
        )
        _require.one_of("products", method, get_args(Method))
        if memory is not None:
            _require.real("the memory in bytes", memory, "(0, inf)")
        if _require.tensor("x_t", x_t).is_meta:
            raise InputError(f"x_t must have values: got {_require.shown(x_t)}")
        if x_t.ndim > len(denoiser.shape) and x_t.shape[0] != 1:
            raise InputError(
                f"a Jacobian is taken at one sample: got a batch of {x_t.shape[0]}; take x_t[i]"
            )
        _require.finite("x_t", denoiser.batched(x_t))
        check_step(step, x_t.dtype)
        one_time(denoiser, t)
        self.denoiser, self.t, self.method, self._memory = denoiser, t, method, memory
        self.autocast = autocast_here()
        with differentiable():
            self.x = denoiser.batched(x_t).detach().clone()
            self._c_x, self._c_out = denoiser.coefficients(self.x, t)
            self.ladder = Ladder(denoiser, self.x, t, method, step, memory=memory)
            self.d = self._c_x * self.x + self._c_out * self.ladder.value
            self._start()
        self._exact: Products | None = None
        self._gain = GAIN

    @property
    def path(self) -> str:
        """How `jvp` is computed."""
        return self.ladder.path

    @property
    def reason(self) -> str:
        """Why it is computed that way."""
        return self.ladder.reason

    @property
    def error(self) -> float:
        """How far `J v` may be off, as far as differences tell, relative to |J v|."""
        return self.ladder.error * self._share

    @property
    def rounding(self) -> float:
        """Relative error that each `J v` is known to have: of differences; of a precision coarser
        than that of x; or of `c_x v` and `c_out F' v`, where these are larger than their sum.
        """
        if self.path.endswith("difference"):
            return self.error
        own, inside = torch.finfo(self.x.dtype).eps, self.ladder.eps * max(1.0, self._share)
        return inside if self.ladder.eps > own or inside > own * self.x.numel() ** 0.5 else 0.0

    @property
    def step(self) -> float | None:
        """Step of the differences, if it is they that are taken."""
        return self.ladder.step

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v` for each row of `v`, shape (K, *shape)."""
        self._check(v, "v")
        with differentiable():
            return self._of_both(v, transposed=False)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J^T u` for each row of `u`, shape (K, *shape).

        Raises
        ------
        InputError
            If the network has no derivative whose transpose agrees with `J v`.
        """
        self._check(u, "u")
        if self.method != "exact":
            self.ladder.check_weights()
            with under(self.autocast):
                self._exact = self._exact or self._of_the_same()
            return self._exact.vjp(u)
        with differentiable():
            return self._of_both(u, transposed=True)

    def has_transpose(self) -> bool:
        """Return whether there is a derivative whose transpose agrees with `J v`."""
        try:
            self.vjp(torch.ones_like(self.x))
        except InputError:
            return False
        return True

    def chunk(self) -> int:
        """Return how many vectors fit in `memory`: one pass takes no more."""
        with differentiable():
            return self.ladder.chunk()

    def forget(self) -> None:
        """Free the graphs that the fallbacks keep."""
        self.ladder.forget()

    def _of_the_same(self) -> Products:
        """Return exact products; raise if the network is another one than at first."""
        exact, first = Products(self.denoiser, self.x, self.t, memory=self._memory), self.ladder
        at, seen = (first.function, self.x, first.value, first.eps), exact.ladder.value
        check_run(*at, seen, seen.new_zeros(1))
        return exact

    def _start(self) -> None:
        """Choose the path, and find what share of J v comes from the network: an error of F' counts
        by that much.
        """
        v = probe(self.x)
        change = self._c_out * self.ladder.choose(v)
        whole = (self._c_x * v + change).flatten(1).norm(dim=1)
        self._share = float(
            (change.flatten(1).norm(dim=1) / whole.clamp(min=torch.finfo(v.dtype).tiny)).max()
        )

    def _check(self, vectors: Tensor, name: str) -> None:
        """Raise unless these are vectors, (K, *shape)."""
        shape = tuple(_require.tensor(name, vectors).shape)
        if shape[1:] != self.x.shape[1:]:
            raise InputError(
                f"{name} has shape {shape}: expected (K, {', '.join(map(str, self.x.shape[1:]))})"
            )

    def _of_both(self, vectors: Tensor, transposed: bool) -> Tensor:
        """Return `c_x w + c_out F' w` for each vector w, with F' or its transpose."""
        self.ladder.check_weights()
        product = self.ladder.vjp if transposed else self.ladder.jvp
        found = self._c_x * vectors + self._c_out * product(vectors.unsqueeze(1)).squeeze(1)
        if self.path == "forward difference" and not transposed:
            at = self.ladder.function, self.x, self.ladder.value, self.ladder.eps
            self._gain = check_base(*at, vectors, found, self._gain)
        return found


def check_step(step: float | None, dtype: torch.dtype) -> None:
    """Raise unless a step of differences, relative to |x|, is above the rounding of x and at most
    10.
    """
    if step is not None:
        least = torch.finfo(dtype).eps
        if not least < _require.real("the finite-difference step", step, "(0, inf)") <= 10:
            raise InputError(
                f"the finite-difference step is relative to |x_t|, above {least:.1e}, the rounding"
                f" of {dtype}, and at most 10: got {step:g}; leave it out for the best one"
            )


def one_time(denoiser: Denoiser, t: Time) -> None:
    """Raise unless t is a single time of the schedule."""
    if denoiser.schedule.time_tensor(t).numel() != 1:
        raise InputError(f"a Jacobian is taken at one time: got {_require.shown(t)}")


__all__ = ["Method", "Products", "differentiable"]
