r"""A function linearised at one point: run once, after which `J v` and `J^T u` are linear algebra.

    J = Linearisation(function, x)  one forward pass, recorded operation by operation
    J.jvp(V)                        the operations' Jacobians in order:  J_m ... J_2 J_1 v
    J.vjp(U)                        their transposes in reverse:         J_1^T J_2^T ... J_m^T u

The recording lies below autograd, where PyTorch calls its kernels: it sees what is computed,
through any module and any control flow, a `no_grad` or `detach` included. Compared with the
derivatives that PyTorch offers,

    the forward pass is not repeated           (torch.func.jvp repeats it, traced, for each product)
    what does not depend on x is not touched   (embeddings of the time, gradients of weights)
    x is one sample, whatever the batch of V   (a graph in reverse mode holds K copies of it)
    neighbouring diagonals are merged          (gamma / deviation and activation: one product)
    no second-order kernel is ever called      (a convolution's computes more than is asked for)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import torch
from torch import Tensor

from jacobian_lab.derivative.hidden import check_the_same, nearby
from jacobian_lab.derivative.linear_map import UnsupportedError, diagonal_map
from jacobian_lab.derivative.recorder import Recorder
from jacobian_lab.derivative.scaling import Scaled, scaled
from jacobian_lab.derivative.tape import Step


class Linearisation:
    """The Jacobian of `function` at `x`.

    Parameters
    ----------
    function : callable
        From a tensor to a tensor.
    x : Tensor
        The point.
    known : iterable of Tensor, optional
        Tensors that exist before: weights and buffers. Any other tensor of the network's own may
        have been computed from x where PyTorch cannot see it, which is found out by running
        `function` once more at another point.
    memory : float
        Bytes that several vectors may take inside PyTorch's derivative of one operation.

    Attributes
    ----------
    value : Tensor
        `function(x)`.
    steps : list of Step
        In the order of the forward pass; maps that do not reach the result are left out.
    borrowed : list of str
        Operations without a rule of their own, other than activations: PyTorch's derivatives of
        them are used.
    coarsest : float
        The largest eps among the precisions in which numbers that depend on x are kept on the way,
        x's own included.
    reads : tuple of str
        How numbers that depend on x were read out, such as "_local_scalar_dense" (`.item()`),
        "tolist" or "numpy". What is computed from them outside PyTorch is a constant here.
    cut : tuple of str
        Operations from numbers that depend on x to integers, such as "argmin" in a quantisation: J
        is zero through them.

    Raises
    ------
    UnsupportedError
        If the recording cannot represent what the function does: the message names the operation.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        known: Iterable[Tensor] = (),
        memory: float = inf,
    ) -> None:
        recorder = _recorded(function, x, known)
        tape = recorder.tape
        self.value, self._sizes, self.coarsest = recorder.value, tape.sizes, recorder.coarsest
        self.reads, self.cut = (
            tuple(sorted(names)) for names in (recorder.witness.reads, recorder.cut)
        )
        self._held = recorder.kept.held(tape.calls)
        steps, borrowed = tape.steps(memory)
        steps, self.output = _merged(_needed(steps, recorder.output), recorder.output)
        self.borrowed = sorted(borrowed)
        self.steps = _planned(steps, self.output, tape.dtypes)

    @property
    def reason(self) -> str:
        """Where the Jacobians of the operations come from."""
        borrowed = f", or PyTorch's derivative: {', '.join(self.borrowed)}" if self.borrowed else ""
        return f"every operation has a rule{borrowed}"

    def jvp(self, v: Tensor) -> Tensor:
        """Return `J v` for K vectors: (K, *x.shape) -> (K, *value.shape)."""
        self._check_held()
        tangents: dict[int, Any] = {0: v}
        # of tangents that are not their own size; none where nothing is in half precision
        scales: dict[int, Tensor] = {}
        for step in self.steps:
            ts, scale = [tangents[i] for i in step.inputs], None
            if scales or step.narrows_ahead:
                ts, scale = scaled(
                    [Scaled(tangents[i], scales.get(i)) for i in step.inputs], step.narrows_ahead
                )
            found = step.linear.push(*ts)
            for i, t in zip(
                step.outputs, (found,) if isinstance(found, Tensor) else found, strict=True
            ):
                tangents[i] = t
                if scale is not None:
                    scales[i] = scale
            for i in step.last:
                del tangents[i]
        return Scaled(tangents[self.output], scales.get(self.output)).product()

    def vjp(self, u: Tensor) -> Tensor:
        """Return `J^T u` for K vectors: (K, *value.shape) -> (K, *x.shape)."""
        self._check_held()
        cotangents: dict[int, Any] = {self.output: u}
        scales: dict[int, Tensor] = {}
        for step in reversed(self.steps):
            us, scale = [cotangents.pop(i, None) for i in step.outputs], None
            if scales or step.narrows_back:
                us, scale = scaled(
                    [
                        None if t is None else Scaled(t, scales.pop(i, None))
                        for i, t in zip(step.outputs, us, strict=True)
                    ],
                    step.narrows_back,
                )
            found = step.linear.pull(*us)
            for i, g in zip(
                step.inputs, (found,) if isinstance(found, Tensor) else found, strict=True
            ):
                if scale is None and not scales:
                    cotangents[i] = cotangents[i] + g if i in cotangents else g
                    continue
                both = Scaled(g, scale)
                if i in cotangents:
                    both = Scaled(cotangents[i], scales.pop(i, None)) + both
                cotangents[i] = both.tensor
                if both.scale is not None:
                    scales[i] = both.scale
        return Scaled(cotangents[0], scales.get(0)).product()

    def _check_held(self) -> None:
        if any(tensor._version != version for tensor, version in self._held):
            raise UnsupportedError(
                "a tensor of the run that was recorded was written to since: a cache of the"
                " network, or a tensor that it keeps beside its parameters and buffers"
            )

    def bytes_per_vector(self) -> int:
        """Return the memory that one more vector needs in a product: the tangents alive at once,
        and as much for kernels.
        """
        alive = peak = self._sizes[0]
        for step in self.steps:
            alive += sum(self._sizes[i] for i in step.outputs)
            peak = max(peak, alive)
            alive -= sum(self._sizes[i] for i in step.last)
        return 2 * peak


def _recorded(function: Callable[[Tensor], Tensor], x: Tensor, known: Iterable[Tensor]) -> Recorder:
    """Record a run; run again where values that rules keep are overwritten later, or tensors come
    from outside PyTorch.
    """
    known = list(known)
    with torch.inference_mode(False):
        recorder, how = _run(function, x, known)
        if recorder.witness.suspect:
            again = Recorder(function, nearby(x), known, maps=False, **how)
            check_the_same(recorder.witness.noted, again.witness.noted)
    return recorder


def _run(
    function: Callable[[Tensor], Tensor], x: Tensor, known: list[Tensor]
) -> tuple[Recorder, dict[str, Any]]:
    """Record a run in the first of the ways that the network allows; return also which.

    It may differentiate itself, or forbid the hooks by which the graph is left empty; and autograd
    forbids some of what a network may do in place without it.
    """
    ways: tuple[dict[str, Any], ...] = ({"saved": False}, {"saved": True}, {"graph": False})
    for way in ways:
        try:
            recorder = Recorder(function, x, known, **way)
            break
        except RuntimeError:
            if way is ways[-1]:
                raise
    lost = recorder.kept.overwritten()
    if lost:
        recorder = Recorder(function, x, known, copied=lost, **way)
        if recorder.kept.overwritten() - lost:
            raise UnsupportedError("an operation in place changes a tensor that a derivative needs")
    return recorder, way


def _needed(steps: list[Step], output: int) -> list[Step]:
    """Leave out the steps that do not reach the output."""
    wanted, needed = {output}, []
    for step in reversed(steps):
        if wanted.intersection(step.outputs):
            wanted.update(step.inputs)
            needed.append(step)
    return needed[::-1]


def _merged(steps: list[Step], output: int) -> tuple[list[Step], int]:
    """Drop identities, and merge a diagonal into the diagonal before it where nobody else needs
    what lies between.
    """
    names: dict[int, int] = {}  # a tangent that equals another
    uses = Counter(i for step in steps for i in step.inputs) + Counter([output])
    ends: dict[int, int] = {}  # tangent -> place of the diagonal step that makes it
    merged: list[Step] = []
    for step in steps:
        step.inputs = tuple(names.get(i, i) for i in step.inputs)
        d, source = step.linear.diagonal, step.inputs[0]
        if not isinstance(d, Tensor) and d == 1:
            names[step.outputs[0]] = source
            uses[source] += uses[step.outputs[0]] - 1
            continue
        if d is not None and source in ends and uses[source] == 1:
            before = merged[ends[source]]
            assert before.linear.diagonal is not None
            merged[ends[source]] = Step(
                before.inputs, step.outputs, diagonal_map(before.linear.diagonal * d)
            )
            ends[step.outputs[0]] = ends[source]
            continue
        if d is not None:
            ends[step.outputs[0]] = len(merged)
        merged.append(step)
    return merged, names.get(output, output)


def _planned(steps: list[Step], output: int, dtypes: list[torch.dtype]) -> list[Step]:
    """Say after which step each tangent can go, and where tangents enter half precision."""
    seen = {output}
    for step in reversed(steps):
        before, after = ({dtypes[i] for i in numbers} for numbers in (step.inputs, step.outputs))
        step.narrows_ahead = torch.float16 in after and before != {torch.float16}
        step.narrows_back = torch.float16 in before and after != {torch.float16}
        step.last = tuple({*step.inputs, *step.outputs} - seen)
        seen.update(step.inputs, step.outputs)
    return steps
