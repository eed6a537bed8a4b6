r"""Products with the Jacobian `J = dD/dx_t` at a fixed point: `J v` and `J^T u` for batches of vectors.

    "exact"      the network is run once and recorded as linear maps; a product applies them: about one forward pass
    "forward"    (D(x + h v) - D(x)) / h: one forward pass; error O(h) + O(eps / h)
    "central"    (D(x + h v) - D(x - h v)) / (2 h): two passes; error O(h^2) + O(eps / h)

A network that cannot be recorded falls back, for "exact", on PyTorch's derivatives: double backward, then forward mode,
then central differences. `path` and `reason` say which it is. `J^T u` is exact in any case. Everything runs on the math
kernel of attention, whose derivatives exist, and the user's setting is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from jacobian_lab.denoiser import Denoiser
from jacobian_lab.errors import InputError
from jacobian_lab.fallbacks import Differences, DoubleBackward, ForwardMode
from jacobian_lab.linear import MANY, UnsupportedError
from jacobian_lab.linearise import Linearisation
from jacobian_lab.schedule import Time

Method: TypeAlias = Literal["exact", "forward", "central"]
MEMORY = {"cpu": 2**26}
"""Bytes for the vectors of one pass, by device: what is fastest (64 MB on the CPU); 2^30 elsewhere."""


@contextmanager
def differentiable() -> Iterator[None]:
    """Make derivatives possible inside (gradients on, attention by the math kernel); restore the caller's settings after."""
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


class Products:
    """Products with `J = dD/dx_t` at one point (x_t, t).

    Parameters
    ----------
    denoiser : Denoiser
        In evaluation mode.
    x_t : Tensor, shape (C, H, W) or (1, C, H, W)
    t : int or float
        Time of the denoiser's schedule.
    method : {"exact", "forward", "central"}
        How `jvp` is computed; `vjp` is always exact.
    step : float, optional
        Step h of the finite differences, relative to the size of x_t; see `jacobian_lab.fallbacks.Differences`.
    memory : int, optional
        Bytes that the vectors of one pass may take; more vectors are more passes. What is recorded of the network, at most
        the activations of one sample a few times over, comes on top.

    Attributes
    ----------
    x : Tensor, shape (1, C, H, W)
        The point, detached.
    d : Tensor, shape (1, C, H, W)
        The primal value `D(x_t, t)`.
    path : str
        How `jvp` is computed: "linearised", "double backward", "forward mode", "central difference", "forward difference".
    reason : str
        Why.

    Raises
    ------
    InputError
        If x_t is not one sample or not finite, the network is in training mode, or its output is not finite.
    """

    def __init__(self, denoiser: Denoiser, x_t: Tensor, t: Time, method: Method = "exact", step: float | None = None,
                 memory: int | None = None) -> None:
        if method not in get_args(Method):
            raise InputError(f"unknown products {method!r}: expected one of {', '.join(get_args(Method))}")
        for name, value in (("finite-difference step", step), ("memory in bytes", memory)):
            if value is not None and not value > 0:
                raise InputError(f"the {name} must be positive: got {value}")
        if not isinstance(x_t, Tensor) or not x_t.is_floating_point():
            raise InputError(f"x_t must be a floating-point tensor: got {getattr(x_t, 'dtype', type(x_t).__name__)}")
        if x_t.ndim == 4 and x_t.shape[0] != 1:
            raise InputError(f"a Jacobian is taken at one sample: got a batch of {x_t.shape[0]}; take x_t[i]")
        _check_evaluation_mode(denoiser)
        _check_finite(x_t, "x_t")
        if tuple(x_t.shape[-3:]) == denoiser.shape:
            x_t = x_t.reshape(1, *denoiser.shape)  # another shape is refused by the denoiser itself
        self.denoiser, self.t, self.method = denoiser, t, method
        self.memory = memory if memory is not None else MEMORY.get(x_t.device.type, 2**30)
        with differentiable():
            self.x = x_t.detach().clone()
            self._linear, self.d, failure = self._record()
            _check_finite(self.d, "the network's output D(x_t, t)", f" at t = {t}, though x_t is finite: check the weights, "
                          "the precision, and that t is on the network's own scale")
            self._otherwise, self.path, self.reason = self._choose(failure, step)
        self.step = self._otherwise.step if isinstance(self._otherwise, Differences) else None
        self._chunk: int | None = None
        self._exact: Products | None = None
        self._reverse_fault: str | None = None
        self._weights = [(p, p._version, p.dtype) for p in denoiser.parameters() if not p.is_inference()]

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v` for each row of `v`, shape (K, C, H, W)."""
        self._check_weights()
        with differentiable():
            return self._in_chunks(v, self._otherwise.jvp if self._linear is None else self._linear.jvp)

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J^T u` for each row of `u`, shape (K, C, H, W).

        Raises
        ------
        InputError
            If the network has no derivative that agrees with a finite difference.
        """
        self._check_weights()
        if self.method != "exact":
            self._exact = self._exact or Products(self.denoiser, self.x, self.t, memory=self.memory)
            return self._exact.vjp(u)
        with differentiable():
            if self._linear is not None:
                return self._in_chunks(u, self._linear.vjp)
            if self._reverse_fault is None:
                self._reverse_fault = self._check_reverse()
            if self._reverse_fault:
                raise InputError(f"J^T u needs a derivative, and PyTorch's {self._reverse_fault}; {self.reason}")
            return self._otherwise.vjp(u)

    def chunk(self) -> int:
        """Return how many vectors fit in `memory`: one pass takes no more where the network is linearised."""
        if self._chunk is None:
            engine = self._otherwise if self._linear is None else self._linear
            with differentiable():
                self._chunk = int(max(1, self.memory // engine.bytes_per_vector()))
        return self._chunk

    def forget(self) -> None:
        """Free the graphs that the fallbacks keep."""
        self._otherwise.forget()

    def _check_weights(self) -> None:
        """Raise if a weight was written to: what is kept here is half of the old network, half of the new."""
        if any(p._version != version or p.dtype != dtype for p, version, dtype in self._weights):
            raise InputError("the network's weights changed since this operator was made: make it anew")

    def _function(self, x: Tensor) -> Tensor:
        return self.denoiser(x, self.t)

    def _in_chunks(self, v: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
        if self._linear is None:
            return product(v)  # the graph is kept for the batch that the caller chose
        with torch.no_grad():
            passes = -(-len(v) // self.chunk())  # of even size
            parts = [product(part.unsqueeze(1)).squeeze(1) for part in torch.tensor_split(v, max(1, passes))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _record(self) -> tuple[Linearisation | None, Tensor, str]:
        """Return the linearisation, if there is one, D(x), and what is in the way if there is none."""
        failure = ""
        if self.method == "exact":
            try:
                linear = Linearisation(self._function, self.x)
                if linear.borrowed:  # derivatives that no test of ours has seen
                    _check_adjoint(linear, self.x)
                with torch.no_grad():
                    if self._agrees(linear.value, lambda v: linear.jvp(v[None])[0]):
                        return linear, linear.value, ""
                failure = "the recording disagrees with a finite difference: part of the network is hidden from PyTorch"
            except (UnsupportedError, RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
                failure = str(error).split("\n")[0]
        with torch.no_grad():
            return None, self._function(self.x), failure  # here an error of the network itself is raised

    def _choose(self, failure: str, step: float | None) -> tuple[DoubleBackward, str, str]:
        """Return what computes products where there is no linearisation, how `J v` is computed, and why."""
        if self.method != "exact":
            return Differences(self._function, self.x, self.method, step), f"{self.method} difference", "as asked"
        first = DoubleBackward(self._function, self.x)
        if self._linear is not None:
            borrowed = f", or PyTorch's derivative: {', '.join(self._linear.borrowed)}" if self._linear.borrowed else ""
            return first, "linearised", f"every operation has a rule{borrowed}"
        reason = f"the network cannot be recorded: {failure}"
        for engine, path in ((first, "double backward"), (ForwardMode(self._function, self.x), "forward mode")):
            try:
                if self._agrees(self.d, engine.jvp):
                    return engine, path, reason
                problem = "disagrees with a finite difference"
            except (RuntimeError, NotImplementedError) as error:
                problem = str(error).split("\n")[0]
            reason += f"; no {path}: {problem}"
        return Differences(self._function, self.x, "central", step), "central difference", reason

    def _agrees(self, value: Tensor, jvp: Callable[[Tensor], Tensor]) -> bool:
        """Return whether `J v` is within a tenth of a forward difference, of one step of several; v leans towards x."""
        if not value.isfinite().all():
            return True  # said to the caller afterwards
        eps, v = torch.finfo(self.x.dtype).eps, self._probe()
        product, noise = jvp(v), 30 * eps * value.norm()
        with torch.no_grad():
            for h in (eps**0.5, 10 * eps**0.5, 0.1 * eps**0.5):
                change = self._function(self.x + h * v) - value
                if (change - h * product).norm() <= 0.1 * change.norm() + noise:
                    return True
        return False

    def _check_reverse(self) -> str:
        """Return what is wrong with `J^T u` by autograd, if anything: `<J v, J v>` should be `<J^T J v, v>`."""
        v = self._probe()
        try:
            u = self._otherwise.jvp(v)
            backward = self._otherwise.vjp(u)
        except (RuntimeError, NotImplementedError) as error:
            return "fails: " + str(error).split("\n")[0]
        agrees = (u.square().sum() - (backward * v).sum()).abs() <= 0.1 * u.square().sum()
        return "" if agrees else "sees another function than the one that is computed (a detach, a no_grad, a number read out)"

    def _probe(self) -> Tensor:
        g = torch.randn(self.x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(self.x)
        return g * self.x.norm() / g.norm() + self.x if self.x.any() else g


def _check_adjoint(linear: Linearisation, x: Tensor) -> None:
    """Raise unless `<u, J v> = <J^T u, v>`, summed over as many pairs as take the layout of many."""
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(MANY, *x.shape, generator=generator, dtype=torch.float64).to(x) for _ in range(2))
    with torch.no_grad():
        Jv, Jtu = linear.jvp(v), linear.vjp(u)
    gap = float(((u * Jv).sum() - (Jtu * v).sum()).abs() / (u.norm() * Jv.norm() + Jtu.norm() * v.norm()))
    if not gap < 100 * torch.finfo(x.dtype).eps:
        raise UnsupportedError(f"J and J^T disagree by {gap:.1e} with PyTorch's derivative of {', '.join(linear.borrowed)}")


def _check_evaluation_mode(denoiser: Denoiser) -> None:
    training = [name for name, module in denoiser.named_modules() if module.training and module is not denoiser]
    if training:
        raise InputError(f"the network is in training mode ({training[0]}{' and more' if training[1:] else ''}): dropout and "
                         "batch statistics would make J another operator at each call. Call denoiser.eval() first")


def _check_finite(x: Tensor, name: str, remedy: str = "") -> None:
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise InputError(f"{name} has {bad} values of {x.numel()} that are not finite (NaN or infinite){remedy}")


__all__ = ["Method", "Products", "differentiable"]
