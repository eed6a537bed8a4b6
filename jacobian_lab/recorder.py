"""One run of a function, recorded below autograd as a sequence of linear maps between tangents."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

import jacobian_lab.norms
import jacobian_lab.rules  # noqa: F401 - the two register their rules
from jacobian_lab.attention import Attention
from jacobian_lab.borrowed import by_derivative
from jacobian_lab.linear import KEEPING, RULES, Call, Linear, UnsupportedError

aten: Any = torch.ops.aten
STATISTICS = -1  # instead of a number: depends on x, but no rule says how
WITH_STATISTICS = frozenset({"native_group_norm", "native_layer_norm", "native_batch_norm", "cudnn_batch_norm",
                             "_native_batch_norm_legit_no_training", "miopen_batch_norm"})
LIKE = frozenset({"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros", "new_ones",
                  "new_full", "new_empty", "new_empty_strided"})  # takes the shape only


@dataclass
class Step:
    """One linear map, between numbered tangents."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    linear: Linear
    last: tuple[int, ...] = ()
    """Tangents that nothing after this step needs."""


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs `function(x)`, sees each operation below autograd, and writes down those whose arguments depend on x."""

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers: Any = WeakIdKeyDictionary()  # tensor that depends on x -> number of its tangent
        self.sizes: dict[int, int] = {}
        self.calls: list[tuple[tuple[int, ...], tuple[int, ...], Call | list[Linear]]] = []
        self.kept: list[tuple[weakref.ref[Tensor], int]] = []  # tensors whose values a rule keeps, and their versions
        self.borrowed: set[str] = set()
        x = x.detach().requires_grad_()  # for modules that take a fused kernel when no gradient is wanted
        self._number(x)
        with self, torch.enable_grad(), _Attentive(self):
            value = function(x)
        if value not in self.numbers or self.numbers[value] == STATISTICS:
            raise UnsupportedError("the result does not depend on x through operations that have a rule or a derivative")
        self.value, self.output = value.detach(), int(self.numbers[value])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        first, others = (args[0], args[1:]) if args and isinstance(args[0], (list, tuple)) else (args, ())
        numbers = [self.numbers.get(a) if isinstance(a, Tensor) else None for a in first]
        for a in (*others, *kwargs.values()):
            for tensor in a if isinstance(a, (list, tuple)) else (a,):
                if isinstance(tensor, Tensor) and tensor in self.numbers:
                    raise UnsupportedError(f"{func} takes a tensor that depends on x in an unusual place")
        active = tuple(i for i, number in enumerate(numbers) if number is not None)
        if not active or func.overloadpacket.__name__ in LIKE:
            return func(*args, **kwargs)
        if func is aten.detach.default:  # autograd's own, of what it saves, or the network's
            out = func(*args)
            self.numbers[out] = numbers[0]
            return out
        if STATISTICS in numbers:
            raise UnsupportedError(f"{func} takes the statistics of a normalisation")
        if func._schema.is_mutable:
            return self._in_place(func, args, kwargs, active, numbers)
        out = func(*args, **kwargs)
        self._write(Call(func, _in_order(func, args, kwargs), out, active), numbers)
        return out

    def attention(self, given: dict[str, Any], run: Callable[[], Tensor]) -> Tensor:
        """Record one attention, or leave it to its parts where it is of a kind that has no rule."""
        tensors = [given["query"], given["key"], given["value"]]
        numbers = [self.numbers.get(tensor) for tensor in tensors]
        mask = given.get("attn_mask")
        alike = len({tensor.shape[:-2] for tensor in tensors}) == 1 and tensors[0].ndim > 2
        if not any(n is not None for n in numbers) or not alike or given.get("dropout_p") or mask in self.numbers:
            return run()
        with _disable_current_modes():
            out = run()
            q, k, _ = tensors
            if given.get("is_causal"):
                mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
            scale = given.get("scale") or q.shape[-1] ** -0.5
            active = tuple(i for i, n in enumerate(numbers) if n is not None)
            call = Call(F.scaled_dot_product_attention, [*(x.detach() for x in tensors), mask, scale], out.detach(), active)
            rule = Attention(call)
        self._keep(tensors)
        self.calls.append((tuple(n for n in numbers if n is not None), (self._number(out),), [Linear(rule.push, rule.pull)]))
        return out

    def steps(self) -> list[Step]:
        """Return the steps; the operations that need PyTorch's derivatives get them now, outside the recording."""
        if any(tensor() is not None and tensor()._version != version for tensor, version in self.kept):  # type: ignore[union-attr]
            raise UnsupportedError("an operation in place changes a tensor that a derivative needs")
        steps: list[Step] = []
        for inputs, outputs, found in self.calls:
            if isinstance(found, Call) and torch.Tag.pointwise not in found.func.tags:
                self.borrowed.add(found.name)
            maps = [by_derivative(found)] if isinstance(found, Call) else found
            between = [(self._slot(self.sizes[outputs[0]]),) for _ in maps[1:]]
            for before, linear, after in zip([inputs, *between], maps, [*between, outputs], strict=True):
                steps.append(Step(before, after, linear))
        return steps

    def _write(self, call: Call, numbers: list[int | None]) -> None:
        outs = list(call.out) if isinstance(call.out, (list, tuple)) else [call.out]
        if any(isinstance(out, Tensor) and out.is_complex() for out in outs):
            raise UnsupportedError(f"{call.func} returns complex numbers")
        if not any(isinstance(out, Tensor) and out.is_floating_point() for out in outs):
            return  # a comparison, an index, a number read into Python: constant nearly everywhere
        found = RULES.get(call.name, _no_rule)(call)
        if found is None or call.name in KEEPING:
            self._keep([a for a in (*call.args, call.out) if isinstance(a, Tensor)])
        inputs, outputs = tuple(n for n in numbers if n is not None), tuple(self._number(out) for out in outs)
        if call.name in WITH_STATISTICS:
            for statistics in outs[1:]:
                self.numbers[statistics] = STATISTICS
            outputs = outputs if found is None else outputs[:1]
        self.calls.append((inputs, outputs, call if found is None else [found] if isinstance(found, Linear) else found))

    def _in_place(self, func: Any, args: Any, kwargs: Any, active: tuple[int, ...], numbers: list[int | None]) -> Any:  # noqa: ANN401
        """Record `x.f_(...)` as `x = f(x, ...)`, where x has no other name."""
        storage = args[0].untyped_storage()._cdata
        names = sum(tensor.untyped_storage()._cdata == storage for tensor in self.numbers.keys())  # noqa: SIM118
        packet = func.overloadpacket.__name__
        functional = getattr(aten, packet.removesuffix("_"), None)
        if 0 not in active or names > 1 or functional is None or not packet.endswith("_"):
            raise UnsupportedError(f"{func} changes in place a tensor that has other names, or that did not depend on x")
        functional = getattr(functional, func._overloadname)
        before = args[0].clone()
        out = functional(before, *args[1:], **kwargs)
        self._write(Call(functional, _in_order(functional, (before, *args[1:]), kwargs), out, active), numbers)
        args[0].copy_(out)
        self.numbers[args[0]] = self.numbers[out]
        return args[0]

    def _keep(self, tensors: list[Tensor]) -> None:
        self.kept += [(weakref.ref(tensor), tensor._version) for tensor in tensors]

    def _number(self, tensor: Tensor) -> int:
        number = self._slot(tensor.numel() * tensor.element_size())
        if tensor.is_floating_point():
            self.numbers[tensor] = number
        return number

    def _slot(self, size: int) -> int:
        self.sizes[len(self.sizes)] = size
        return len(self.sizes) - 1


class _Attentive(TorchFunctionMode):
    """Records attention as one operation, whichever kernel computes it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return self.recorder.attention(given, lambda: func(*args, **kwargs))


def _no_rule(_: Call) -> None:
    return None


def _in_order(func: Any, args: Any, kwargs: Any) -> list[Any]:  # noqa: ANN401
    """Return all arguments in the order of the schema, defaults filled in."""
    rest = func._schema.arguments[len(args):]
    return [*args, *(kwargs.get(a.name, a.default_value if a.has_default_value() else None) for a in rest)]
