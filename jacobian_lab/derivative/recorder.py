"""One run of a function, recorded below autograd as a sequence of linear maps between tangents."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import jacobian_lab.derivative.complex_rules
import jacobian_lab.derivative.rules
import jacobian_lab.derivative.shape_rules  # noqa: F401 - they register their rules
from jacobian_lab.derivative.arguments import apply, each, has_lists_behind, in_order, tensors
from jacobian_lab.derivative.attention import FUSED, Attention, attention_call
from jacobian_lab.derivative.hidden import LIKE, READING, Witness, is_plain
from jacobian_lab.derivative.in_place import OVERWRITING, RESHAPING, functional, is_out, written
from jacobian_lab.derivative.kept import Kept
from jacobian_lab.derivative.linear_map import (
    KEEPING,
    KEEPING_RESULT,
    RULES,
    Call,
    TangentMap,
    UnsupportedError,
)
from jacobian_lab.derivative.normalisation import WITH_STATISTICS
from jacobian_lab.derivative.places import Place, place
from jacobian_lab.derivative.python_calls import PythonCalls
from jacobian_lab.derivative.settings import MATH_ATTENTION
from jacobian_lab.derivative.storage import Memory
from jacobian_lab.derivative.tape import Tape

aten: Any = torch.ops.aten
STATISTICS = -1
"""Number of a tangent that does not exist: of the mean and deviation that a normalisation returns
beside its result, which depend on x, but for which there is no rule.
"""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs `function(x)`, sees each operation below autograd, and writes down those whose arguments
    depend on x.

    Parameters
    ----------
    function : callable
        From a tensor to a tensor.
    x : Tensor
        Copied, so that the function may write to it.
    known : iterable of Tensor
        Weights and buffers: not computed from x.
    graph : bool
        Whether x requires a gradient, as modules with a fused kernel for inference look at.
    copied : iterable of int
        Calls whose rules keep copies; see `jacobian_lab.derivative.kept.Kept`.
    saved : bool
        Whether autograd keeps a graph that has derivatives: some networks differentiate themselves.
    maps : bool
        Whether maps are written down, or only what the witness sees is wanted.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        known: Iterable[Tensor] = (),
        graph: bool = True,
        copied: Iterable[int] = (),
        saved: bool = True,
        maps: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # a bound method would be a cycle, alive until gc
        self.memory = Memory(partial(Recorder._derive, weakref.proxy(self)))
        self.witness = Witness(self.memory, known)
        self.tape, self.kept, self.maps = Tape(), Kept(self.memory, copied), maps
        self.coarsest = torch.finfo(x.dtype).eps
        self.cut: set[str] = set()  # operations from numbers that depend on x to integers
        # for modules that take a fused kernel when no gradient is wanted
        x = x.detach().clone().requires_grad_(graph)
        self._number(x)
        hooks = MATH_ATTENTION if saved else saved_tensors_hooks(lambda _: None, _refuse)
        calls = PythonCalls(self.witness, self.attention)
        with self, torch.set_grad_enabled(graph), hooks, calls:
            value = function(x)
        self.witness.check()
        number = self.memory.number(value) if isinstance(value, Tensor) else None
        if number is None or number == STATISTICS:
            names = ", ".join(sorted(self.cut))
            through = f": only through {names}, whose derivative is zero" if names else ""
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
            biased = mask is not None and self.memory.number(mask) is not None
        if (
            not any(n is not None for n in numbers)
            or given.get("dropout_p")
            or biased
            or STATISTICS in numbers
        ):
            return run()
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            for tensor in tensors(*operands, mask):
                self.witness.meets(tensor)
            out = run()
            self.memory.of(out).made = True
            number = self._number(out)
            if not self.maps:
                return out
            active = tuple(i for i, n in enumerate(numbers) if n is not None)
            call = attention_call(given, out, active)
            held = tensors(*call.args, call.out)
            rule = Attention(self.kept.keep(len(self.tape.calls), call, held))
            self._add(numbers, (number,), TangentMap(rule.push, rule.pull))
        return out

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
        if self.maps:
            self._map(call, outs, numbers)
        else:
            for out in outs:
                self._number(out)

    def _map(self, call: Call, outs: list[Tensor], numbers: list[int | None]) -> None:
        """Write down an operation's Jacobian, or the operation itself where it has no rule."""
        rule = RULES.get(call.name)
        both = call.name in FUSED or (call.name in KEEPING and len(call.active) > 1)
        constants = [a for a in tensors(*call.args) if self.memory.number(a) is None]
        results = outs if call.name in KEEPING_RESULT or call.name in FUSED else []
        keep = partial(self.kept.keep, len(self.tape.calls))
        call = keep(call, [*(call.inputs if both else []), *constants, *results])
        # a graph of autograd's would be kept; and the network may change a tensor's shape in place
        call = replace(call, args=each(Tensor.detach, call.args), out=each(Tensor.detach, call.out))
        found = None if rule is None else rule(call)
        call = keep(call, call.inputs) if found is None else call  # derived after the run
        outputs = [self._number(out) for out in outs]
        if call.name in WITH_STATISTICS or call.name in FUSED:
            for statistics in outs[1:]:
                self.memory.of(statistics).tangents = {place(statistics): STATISTICS}
            outputs = outputs if found is None else outputs[:1]
        self._add(numbers, tuple(outputs), call if found is None else found)

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
            given = [result, target.dtype, None, None, None, False, None]
            call = Call(aten._to_copy.default, given, cast, (0,))
            self._write(call, [self.memory.number(result)])
            result = cast
        floating = target.is_floating_point() or target.is_complex()
        self.memory.write(target, self.memory.number(result) if floating else None)
        target.copy_(result)

    def _add(
        self,
        numbers: list[int | None],
        outputs: tuple[int, ...],
        found: Call | TangentMap | list[TangentMap],
    ) -> None:
        found = [found] if isinstance(found, TangentMap) else found
        self.tape.append(tuple(n for n in numbers if n is not None), outputs, found)

    def _derive(self, inputs: tuple[int, ...], there: Place, linear: TangentMap) -> int:
        """Record a map between places in memory."""
        size = torch.Size(there.shape).numel() * there.dtype.itemsize
        number = self.tape.slot(size, there.dtype)
        if STATISTICS in inputs:
            raise UnsupportedError("the statistics of a normalisation are used")
        self.tape.append(inputs, (number,), [linear])
        return number

    def _number(self, tensor: Tensor) -> int:
        number = self.tape.slot(tensor.numel() * tensor.element_size(), tensor.dtype)
        if tensor.is_floating_point() or tensor.is_complex():
            self.memory.of(tensor).tangents[place(tensor)] = number
            self.coarsest = max(self.coarsest, torch.finfo(tensor.dtype).eps)
        return number


def _refuse(_: None) -> Tensor:
    raise RuntimeError("the network differentiates itself: autograd has to keep its graph")
