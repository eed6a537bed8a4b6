"""One run of a function, recorded below autograd as a sequence of linear maps between tangents."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import jacobian_lab.derivative.complex_rules
import jacobian_lab.derivative.normalisation
import jacobian_lab.derivative.rules  # noqa: F401 - the three register their rules
from jacobian_lab.derivative.arguments import apply, each, has_lists_behind, in_order, tensors
from jacobian_lab.derivative.attention import Attention
from jacobian_lab.derivative.autograd_rules import by_derivative
from jacobian_lab.derivative.hidden import LEAVING, LIKE, LITERAL, Witness, is_plain
from jacobian_lab.derivative.in_place import OVERWRITING, RESHAPING, functional, is_out, written
from jacobian_lab.derivative.linear_map import (
    KEEPING,
    KEEPING_RESULT,
    RULES,
    Call,
    Linear,
    UnsupportedError,
)
from jacobian_lab.derivative.memory import Memory, Place, Storage, overlap, place

aten: Any = torch.ops.aten
STATISTICS = -1  # instead of a number: depends on x, but no rule says how
READING = frozenset({"_local_scalar_dense", "equal", "allclose", "is_nonzero"})
WITH_STATISTICS = frozenset(
    {
        "native_group_norm",
        "native_layer_norm",
        "native_batch_norm",
        "cudnn_batch_norm",
        "_native_batch_norm_legit_no_training",
        "miopen_batch_norm",
    }
)


@dataclass
class Step:
    """One linear map, between numbered tangents."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    linear: Linear
    last: tuple[int, ...] = ()
    """Tangents that nothing after this step needs."""
    narrows_ahead: bool = False
    """Whether `push` takes tangents into half precision."""
    narrows_back: bool = False
    """Whether `pull` does."""


@dataclass
class _Recorded:
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    found: Call | list[Linear]
    """A call is left to PyTorch's derivative, which is taken after the run."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs `function(x)`, sees each operation below autograd, and writes down those whose arguments
    depend on x.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        known: Iterable[Tensor] = (),
        graph: bool = True,
        copied: Iterable[int] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # a bound method would be a cycle, alive until gc
        self.memory = Memory(partial(Recorder._derive, weakref.proxy(self)))
        self.witness = Witness(self.memory, known)
        self.sizes: dict[int, int] = {}
        self.dtypes: dict[int, torch.dtype] = {}
        self.coarsest = torch.finfo(x.dtype).eps
        self.calls: list[_Recorded] = []
        self.copied = frozenset(copied)  # calls that keep copies
        # call, tensor that it keeps, how that was then
        self.kept: list[tuple[int, Tensor, tuple[Storage, int, Place]]] = []
        self.cut: set[str] = set()  # operations from numbers that depend on x to integers
        # for modules that take a fused kernel when no gradient is wanted
        x = x.detach().clone().requires_grad_(graph)
        self._number(x)
        with self, torch.set_grad_enabled(graph), _Python(self):
            value = function(x)
        self.witness.check()
        number = self.memory.number(value) if isinstance(value, Tensor) else None
        if number is None or number == STATISTICS:
            through = (
                f": only through {', '.join(sorted(self.cut))}, whose derivative is zero"
                if self.cut
                else ""
            )
            raise UnsupportedError(
                "the result does not depend on x through operations that have a"
                f" derivative{through}"
            )
        self.value, self.output = value.detach(), number

    supports_higher_order_operators = True  # to refuse them by name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not isinstance(func, torch._ops.OpOverload):
            raise UnsupportedError(f"{func}, an operation on functions, has no rule")
        # there, operations arrive whole that are taken apart elsewhere
        if torch.is_inference_mode_enabled():
            with self:
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        with torch._C.DisableTorchFunction():
            given = in_order(func, args, kwargs or {})
            self.witness.enters(func, given)
            out = self._operate(func, args, kwargs or {}, given)
            self.witness.makes(func, out)
            return out

    def _operate(self, func: Any, args: Any, kwargs: Any, given: list[Any]) -> Any:
        listed = bool(given) and isinstance(given[0], (list, tuple))
        first = given[0] if listed else given
        numbers = [self.memory.number(a) if isinstance(a, Tensor) else None for a in first]
        name = func.overloadpacket.__name__
        # of the first argument, only the shape is left
        if numbers and name in ("copy", "fill", "zero"):
            numbers[0] = None
        active = tuple(i for i, number in enumerate(numbers) if number is not None)
        if func._schema.is_mutable:
            return self._in_place(func, args, kwargs, given, numbers)
        self._check_places(func, given)
        out = func(*args, **kwargs)
        if active and name not in LIKE and name not in ("detach", "alias", "lift_fresh"):
            self._write(Call(func, given, out, active), numbers)
        return out

    def _check_places(self, func: Any, given: list[Any]) -> None:
        """Raise if a tensor that depends on x is neither an argument of its own nor in a list that
        is the first argument.
        """
        if not has_lists_behind(func):
            return
        lists = [a for i, a in enumerate(given) if not isinstance(a, Tensor) and i > 0]
        behind = given[1:] if given and isinstance(given[0], (list, tuple)) else []
        if any(self.memory.number(a) is not None for a in tensors(*lists, *behind)):
            raise UnsupportedError(f"{func} takes a tensor that depends on x in an unusual place")

    def attention(self, given: dict[str, Any], run: Callable[[], Tensor]) -> Tensor:
        """Record one attention, or leave it to its parts where it is of a kind that has no rule."""
        operands = [given["query"], given["key"], given["value"]]
        mask = given.get("attn_mask")
        with torch._C.DisableTorchFunction():
            numbers = [self.memory.number(tensor) for tensor in operands]
            alike = len({tensor.shape[:-2] for tensor in operands}) == 1 and operands[0].ndim > 2
            biased = mask is not None and self.memory.number(mask) is not None
        if (
            not any(n is not None for n in numbers)
            or not alike
            or given.get("dropout_p")
            or biased
            or STATISTICS in numbers
        ):
            return run()
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            for tensor in tensors(*operands, mask):
                self.witness.meets(tensor)
            out = run()
            q, k, _ = operands
            if given.get("is_causal"):
                mask = torch.ones(
                    q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device
                ).tril()
            scale = given.get("scale") or q.shape[-1] ** -0.5
            active = tuple(i for i, n in enumerate(numbers) if n is not None)
            call = Call(
                F.scaled_dot_product_attention,
                [*(x.detach() for x in operands), mask, scale],
                out.detach(),
                active,
            )
            rule = Attention(self._keep(call, [call.out]))
            self.memory.of(out).made = True
            self._add(numbers, (self._number(out),), [Linear(rule.push, rule.pull)])
        return out

    def overwritten(self) -> set[int]:
        """Return the calls that keep values which were written to after them."""
        lost = set()
        for i, tensor, (storage, writes, there) in self.kept:
            written = any(overlap(there, p) for p in storage.written[writes:])
            if written or self.memory.of(tensor) is not storage or place(tensor) != there:
                lost.add(i)
        return lost

    def held(self) -> list[tuple[Tensor, int]]:
        """Return the tensors of this run that rules hold, and their versions: a network may keep
        one and write to it later.
        """
        # autograd sees to the others
        rules = {i for i, call in enumerate(self.calls) if not isinstance(call.found, Call)}
        return [
            (tensor, tensor._version)
            for i, tensor, (storage, *_) in self.kept
            if i in rules and storage.made and not tensor.is_inference()
        ]

    def steps(self) -> tuple[list[Step], set[str]]:
        """Return the steps, and which operations borrow PyTorch's derivatives: those are taken now,
        outside the recording.
        """
        steps: list[Step] = []
        borrowed = set()
        for call in self.calls:
            if isinstance(call.found, Call) and torch.Tag.pointwise not in call.found.func.tags:
                borrowed.add(call.found.name)
            maps = [by_derivative(call.found)] if isinstance(call.found, Call) else call.found
            between = [
                (self._slot(self.sizes[call.outputs[0]], self.dtypes[call.outputs[0]]),)
                for _ in maps[1:]
            ]
            for before, linear, after in zip(
                [call.inputs, *between], maps, [*between, call.outputs], strict=True
            ):
                steps.append(Step(before, after, linear))
        return steps, borrowed

    def _write(self, call: Call, numbers: list[int | None]) -> None:
        """Record one operation that is not in place."""
        outs = tensors(call.out)
        if not all(map(is_plain, (*outs, *tensors(*call.args)))):
            raise UnsupportedError(
                f"{call.func} with a tensor that is sparse, nested, opaque or a wrapper of others"
            )
        floats = [out.is_floating_point() or out.is_complex() for out in outs]
        if not outs:
            self.witness.reads |= {call.name} & READING
            return
        if not any(floats):
            self.cut |= {call.name for out in outs if out.dtype != torch.bool}
            return  # a comparison, an index: constant nearly everywhere
        if STATISTICS in numbers:
            raise UnsupportedError(f"{call.func} takes the statistics of a normalisation")
        rule = RULES.get(call.name)
        if call.func.is_view and (
            rule is None or call.func is aten.view.dtype or all(map(self.memory.has, outs))
        ):
            return  # read from memory when it is needed
        inputs = (
            call.inputs if rule is None or (call.name in KEEPING and len(call.active) > 1) else []
        )
        constants = [a for a in tensors(*call.args) if self.memory.number(a) is None]
        call = self._keep(
            call, [*inputs, *constants, *(outs if call.name in KEEPING_RESULT else [])]
        )
        # for later, when the network may have changed the shape of the result in place
        if rule is None:
            call = replace(call, out=each(Tensor.detach, call.out))
        found = None if rule is None else rule(call)
        outputs = [self._number(out) for out in outs]
        if call.name in WITH_STATISTICS:
            for statistics in outs[1:]:
                self.memory.of(statistics).tangents = {place(statistics): STATISTICS}
            outputs = outputs if found is None else outputs[:1]
        self._add(
            numbers,
            tuple(outputs),
            call if found is None else [found] if isinstance(found, Linear) else found,
        )

    def _in_place(
        self, func: Any, args: Any, kwargs: Any, given: list[Any], numbers: list[int | None]
    ) -> Any:
        """Record `x.f_(...)` as `x = f(x, ...)`, after which the memory of x has another tangent,
        by any name.
        """
        targets = written(func, given)
        active = any(self.memory.number(a) is not None for a in tensors(*given))
        if not active:
            out = func(*args, **kwargs)
            for target in targets:
                if target.layout is torch.strided:
                    self.memory.write(target, None)
            return out
        pure = functional(func)
        if (
            pure is None
            or len(targets) != 1
            or not isinstance(args[0], Tensor)
            or func.overloadpacket.__name__ in RESHAPING
        ):
            raise UnsupportedError(f"{func} changes a tensor in place, in a way that has no rule")
        target = targets[0]
        if pure.is_view:  # squeeze_, t_: the memory stays as it is
            before = target.detach()
            out = func(*args, **kwargs)
            view = pure(before, *given[1:])
            self._write(Call(pure, [before, *given[1:]], view, (0,)), numbers)
            return out
        if is_out(func):
            return self._out(func, pure, given, numbers, target)
        before = target.clone()
        rest = [before, *given[1:]]
        result = apply(pure, rest)
        forgotten = func.overloadpacket.__name__ in OVERWRITING
        kept = [None if i == 0 and forgotten else n for i, n in enumerate(numbers)]
        self._assign(pure, rest, result, kept, target)
        return args[0]

    def _out(
        self, func: Any, pure: Any, given: list[Any], numbers: list[int | None], target: Tensor
    ) -> Tensor:
        """Record `f(..., out=target)` as `target = f(...)`."""
        rest, numbers = given[:-1], numbers[:-1]
        result = apply(pure, rest)
        if result.shape != target.shape:
            raise UnsupportedError(f"{func} changes the shape of what it writes to")
        self._assign(pure, rest, result, numbers, target)
        return target

    def _assign(
        self, pure: Any, given: list[Any], result: Tensor, numbers: list[int | None], target: Tensor
    ) -> None:
        """Record a functional operation, and write its result to `target`."""
        self.witness.makes(pure, result)
        active = tuple(i for i, n in enumerate(numbers) if n is not None)
        self._check_places(pure, given)
        if active:
            self._write(Call(pure, given, result, active), numbers)
        if result.dtype != target.dtype and self.memory.number(result) is not None:
            cast = result.to(target.dtype)
            self._write(
                Call(
                    aten._to_copy.default,
                    [result, target.dtype, None, None, None, False, None],
                    cast,
                    (0,),
                ),
                [self.memory.number(result)],
            )
            result = cast
        floating = target.is_floating_point() or target.is_complex()
        self.memory.write(target, self.memory.number(result) if floating else None)
        target.copy_(result)

    def _keep(self, call: Call, kept: list[Tensor]) -> Call:
        """Note that a rule keeps the values of some tensors, or give it copies if they were
        overwritten in the run before.
        """
        i = len(self.calls)
        states = [self._state(tensor) for tensor in kept]
        # a buffer, which the next run overwrites
        lasting = any(storage.written and not storage.made for storage, *_ in states)
        if i in self.copied or lasting:
            return replace(
                call, args=each(Tensor.clone, call.args), out=each(Tensor.clone, call.out)
            )
        self.kept += [(i, tensor, state) for tensor, state in zip(kept, states, strict=True)]
        return call

    def _state(self, tensor: Tensor) -> tuple[Storage, int, Place]:
        storage = self.memory.of(tensor)
        return storage, len(storage.written), place(tensor)

    def _add(
        self, numbers: list[int | None], outputs: tuple[int, ...], found: Call | list[Linear]
    ) -> None:
        self.calls.append(_Recorded(tuple(n for n in numbers if n is not None), outputs, found))

    def _derive(self, inputs: tuple[int, ...], there: Place, linear: Linear) -> int:
        """Record a map between places in memory."""
        number = self._slot(torch.Size(there.shape).numel() * there.dtype.itemsize, there.dtype)
        if STATISTICS in inputs:
            raise UnsupportedError("the statistics of a normalisation are used")
        self.calls.append(_Recorded(inputs, (number,), [linear]))
        return number

    def _number(self, tensor: Tensor) -> int:
        number = self._slot(tensor.numel() * tensor.element_size(), tensor.dtype)
        if tensor.is_floating_point() or tensor.is_complex():
            self.memory.of(tensor).tangents[place(tensor)] = number
            self.coarsest = max(self.coarsest, torch.finfo(tensor.dtype).eps)
        return number

    def _slot(self, size: int, dtype: torch.dtype) -> int:
        number = len(self.sizes)
        self.sizes[number], self.dtypes[number] = size, dtype
        return number


class _Python(TorchFunctionMode):
    """Records attention as one operation, whichever kernel computes it, and sees tensors leave for
    numpy and pointers.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name, witness = kwargs or {}, getattr(func, "__name__", ""), self.recorder.witness
        if func is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            return self.recorder.attention(given, lambda: func(*args, **kwargs))
        if name in LEAVING and isinstance(args[0], Tensor) and args[0].layout is torch.strided:
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                witness.leaves(args[0], name)
        if name not in LITERAL:
            return func(*args, **kwargs)
        witness.literal = not any(
            hasattr(a, "__array_interface__") or hasattr(a, "__dlpack__") for a in args[:1]
        )
        try:
            return func(*args, **kwargs)
        finally:
            witness.literal = False
