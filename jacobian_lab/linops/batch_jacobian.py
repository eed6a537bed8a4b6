r"""The Jacobian of a batch of samples: block diagonal, `J = diag(J_1, ..., J_B)`, with what its
products cost.

    J = BatchJacobian(denoiser, x_t, t)     x_t (B, *shape)
    J.d                                     D(x_t, t): one forward pass
    J.jvp(v)                                J_b v_b for each sample, its own vector
    J.vjp(u)                                J_b^T u_b: one backward pass

`JacobianOperator` is one block with many vectors; this is many blocks with a vector each, what a
sampler needs. Exact products come from the same ladder with the same check, made along the first
vector that is asked for; nothing is kept of the network unless exact products or `J^T u` are asked
for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.derivative.fallbacks import Differences, Function
from jacobian_lab.derivative.guards import (
    check_apart,
    check_base,
    check_evaluation_mode,
    check_run,
    modules_called,
)
from jacobian_lab.derivative.ladder import Ladder
from jacobian_lab.derivative.precision import observed
from jacobian_lab.derivative.products import Method, one_time
from jacobian_lab.derivative.randomness import deterministic
from jacobian_lab.derivative.settings import (
    as_called,
    autocast_here,
    differentiable,
    made_under,
    under,
)
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.linops.jacobian import JacobianOperator
from jacobian_lab.linops.one_network import OneNetwork
from jacobian_lab.linops.spent import Spent


class BatchJacobian:
    """`diag(J_1, ..., J_B)` at a batch of noisy samples, all at one time.

    Parameters
    ----------
    denoiser : Denoiser
    x_t : Tensor, shape (B, *shape)
    t : int or float
    products : {"exact", "forward", "central"}
        How `J v` is computed; a forward difference, one pass, by default.
    graph : bool
        Compute D(x_t) with PyTorch's graph, so that `J^T u` costs a backward pass and nothing else.
    spent : Spent, optional
        Where passes are counted; an own count by default. The check's few passes of two samples are
        not counted.
    like : BatchJacobian, optional
        One of the same denoiser: its precision is that of differences here, and where its time is
        the same, its paths are taken without another check.

    Raises
    ------
    InputError
        With exact products or `J^T u`: if the network is in training mode, returns something else
        at each call, couples the samples of a batch, or has no derivative that passes the check.
        With any: if the network was changed since D was computed, as far as that is seen.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Time,
        products: Method = "forward",
        graph: bool = False,
        spent: Spent | None = None,
        like: BatchJacobian | None = None,
    ) -> None:
        _require.instance(
            "denoiser",
            denoiser,
            Denoiser,
            "; make one by Denoiser(network, schedule, prediction, shape)",
        )
        _require.one_of("products", products, get_args(Method))
        _require.flag("graph", graph)
        for name, given, kind in (("spent", spent, Spent), ("like", like, BatchJacobian)):
            if given is not None:
                _require.instance(name, given, kind)
        denoiser.batched(x_t)
        if like is None:  # else a sampler's, which tells itself where x_t left all bounds
            _require.finite("x_t", x_t)
        self.denoiser, self.t, self.method, self.graph = denoiser, t, products, graph
        self.x = denoiser.batched(x_t).detach().clone()  # which the caller may write into
        self.spent = Spent() if spent is None else spent
        self.eps: float = float(torch.finfo(x_t.dtype).eps) if like is None else like.eps
        self._eps_known = like is not None
        self._like = None if like is None or like._ladder is None else like._ladder.choice()
        # a method would tie self and the graphs into a cycle
        self._function: Function = as_called(partial(denoiser.output, t=t))
        self._autocast = autocast_here()
        self.one: OneNetwork = OneNetwork(self.x.device.type) if like is None else like.one
        self._d: Tensor | None = None
        self._value: Tensor | None = None
        self._ladder: Ladder | None = None
        self._share = 1.0  # of the network's part in a product: its errors count by that much
        self._coefficients = self._at_time(like)

    @property
    def path(self) -> str:
        """How exact products are computed, once they were; else what differences are taken."""
        return (
            self._ladder.path
            if self._ladder is not None and self.method == "exact"
            else f"{self.method} difference"
        )

    @property
    def product_error(self) -> float:
        """How far exact products may be off relative to their size, as far as the check tells; 0
        before there are any.
        """
        return 0.0 if self._ladder is None else self._ladder.error * self._share

    @property
    def d(self) -> Tensor:
        """D(x_t, t), (B, *shape), detached."""
        if self._d is None:
            if self.graph or self.method == "exact":
                self._value = self._climbed().value
            else:
                self.spent.forward += 1
                with torch.no_grad():
                    self._value = self._first() if not self._eps_known else self._function(self.x)
            c_x, c_out = self._coefficients
            self._d = (c_x * self.x + c_out * self._value).to(self.x.dtype)
        return self._d

    def _first(self) -> Tensor:
        """Return F(x_t, t), and note the precision inside, which sets the step of differences."""
        with modules_called() as called:
            value, eps, *_ = observed(self._function, self.x)
        self.eps, self._eps_known = max(self.eps, eps), True
        self.one.watch([*called, *self.denoiser.modules()])
        return value

    def denoise(self, x: Tensor) -> Tensor:
        """Return D at other points of the same time: one forward pass."""
        self.denoiser.batched(x)
        self.spent.forward += 1
        with torch.no_grad(), under(self._autocast):
            return self.denoiser(x, self.t)

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J_b v_b`, (B, *shape)."""
        v = _require.tensor("v", v, self.x.shape).detach()
        c_x, c_out = self._coefficients
        if self.method != "exact":
            self._check_kept()
            self.spent.forward += 1 if self.method == "forward" else 2
            if self._d is None and (self.method == "forward" or not self._eps_known):
                _ = self.d  # the difference's other end; and the precision inside
            engine = Differences(self._function, self.x, self.method, None, self._value, self.eps)
            product = c_x * v + c_out * engine.jvp(v)
            if self.method == "forward":
                self._note(check_base, v, product)
            elif (seen := engine.told()) is not None:
                self._note(check_run, *seen)
            return product
        ladder = self._climbed()
        self.spent.jvp += 1
        with differentiable():
            change = c_out * ladder.jvp(v[None])[0]
            product = (c_x * v + change).to(v.dtype).detach()
        self._share = max(self._share, float(_length(change) / _length(product).clamp(min=1e-300)))
        return product

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J_b^T u_b`, (B, *shape)."""
        _require.tensor("u", u, self.x.shape)
        c_x, c_out = self._coefficients
        ladder = self._climbed()
        self.spent.vjp += 1
        with differentiable():
            return (c_x * u + c_out * ladder.vjp(u[None])[0]).to(u.dtype).detach()

    def dense(self) -> Tensor:
        """Return the blocks, (B, n, n), row by row: n backward passes."""
        units = torch.eye(self.x[0].numel(), dtype=self.x.dtype, device=self.x.device).reshape(
            -1, *self.x.shape[1:]
        )
        return torch.stack([self.vjp(unit.expand_as(self.x)).flatten(1) for unit in units], dim=1)

    def select(self, index: Tensor) -> BatchJacobian:
        """Return the Jacobian of some of the samples, by a boolean index, (B,), with the D that is
        known and an own count of passes; what was recorded is recorded anew if it is needed.
        """
        index = index.to(self.x.device)
        with under(self._autocast):
            chosen = BatchJacobian(
                self.denoiser, self.x[index], self.t, self.method, self.graph, like=self
            )
        if self._d is not None and self._value is not None:
            chosen._d, chosen._value = self._d[index], self._value[index]
        return chosen

    def block(self, i: int) -> JacobianOperator:
        """Return J_i as an n x n operator, with exact products. Its passes are not counted here:
        they are of one sample.
        """
        i = _require.integer("the sample's number", i, 0, len(self.x) - 1)
        with under(self._autocast):
            return JacobianOperator(self.denoiser, self.x[i : i + 1], self.t)

    def on_arrays(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `J_b v_b` for numpy vectors, (B, n): what `jacobian_lab.krylov.many_systems` works
        on.
        """
        return self.arrays(self.jvp(self.images(v)))

    def images(self, v: NDArray[np.float64]) -> Tensor:
        """Return numpy vectors, (B, n), as images, in the dtype and on the device of x_t."""
        return torch.from_numpy(v).to(self.x).reshape(self.x.shape)

    @staticmethod
    def arrays(v: Tensor) -> NDArray[np.float64]:
        """Return images as numpy vectors, (B, n)."""
        return np.asarray(v.detach().cpu().double().flatten(1).numpy())

    def guard(self) -> None:
        """Raise unless the network is one that samplers can take; note its precision. One pass of a
        sample or two.

        Raises
        ------
        InputError
            If it is in training mode, returns something else at each call, or couples the samples
            of a batch.
        """
        self._eps_known = True  # from one sample, below
        _ = self.d
        last = self.x[-1:]
        again = partial(self._function, last)
        with differentiable(), torch.no_grad(), deterministic(again), modules_called() as called:
            alone, eps, *_ = observed(self._function, last)
            check_evaluation_mode(self.denoiser, called)
        self.one.watch([*called, *self.denoiser.modules()])
        self.eps = max(self.eps, eps)
        assert self._value is not None
        check_apart(self._function, self.x, self._value, alone, self.eps)

    def __reduce__(self) -> Any:
        """Pickle what it was made of: its recording, and D, are made anew at the other side."""
        made_of = self.denoiser, self.x, self.t, self.method, self.graph, self.spent.copy()
        return made_under, (self._autocast, type(self), made_of), {"eps": self.eps}

    def _at_time(self, like: BatchJacobian | None) -> tuple[Tensor, Tensor]:
        """Return the coefficients of D; at a sampler's next step at one time, a number, nothing of
        the schedule is new.
        """
        if (
            like is not None
            and like.denoiser is self.denoiser
            and like.t is self.t
            and not isinstance(self.t, Tensor)
            and like.x.dtype == self.x.dtype
        ):
            return like._coefficients
        one_time(self.denoiser, self.t)
        return self.denoiser.coefficients(self.x, self.t)

    def _check_kept(self) -> None:
        """Raise if the weights are others than at D, or float32 is computed otherwise."""
        self.one.check(self.eps)
        if self._ladder is not None:
            self._ladder.check_weights()

    def _climbed(self) -> Ladder:
        """Return the ladder of derivatives at the batch; the network runs once for it."""
        if self._ladder is None:
            self._check_kept()
            self.spent.forward += 1
            graph = self.graph and self.method != "exact"
            with under(self._autocast), differentiable():
                ladder = Ladder(self.denoiser, self.x, self.t, graph=graph, like=self._like)
            none = ladder.value.new_zeros(len(self.x))
            self._note(check_run, ladder.value, none, eps=max(self.eps, ladder.eps))
            self._ladder = ladder  # of the network of D
        self._ladder.check_weights()
        return self._ladder

    def _note(self, check: Callable[..., float], *of: Tensor, eps: float | None = None) -> None:
        """Have what a run of the network tells compared with what D was computed from, if it
        was.
        """
        if self._value is not None:
            at = self._function, self.x, self._value, eps or self.eps
            self.spent.forward += self.one.note(partial(check, *at, *of), self.x.device.type)


def _length(x: Tensor) -> Tensor:
    return x.detach().double().norm()
