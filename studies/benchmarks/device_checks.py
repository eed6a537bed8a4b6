"""Whether J on a device is J, in each precision: against float64 on the CPU; and how often products
and sampling make the host wait for the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import mnist
from jacobian_lab import (
    ConvergenceWarning,
    Denoiser,
    DerivativeWarning,
    Inpainting,
    JacobianOperator,
    Newton,
    audit,
    eigenpairs,
    masks,
    sample,
    seeded_noise,
)
from mnist.evaluate import noisy_digit

PRECISIONS = {
    "float64": (torch.float64, False),
    "float32": (torch.float32, False),
    "float32, TF32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
}
"""Name -> dtype of the network, and whether matrix products may take TF32."""
TF32 = 2.0**-11
"""Unit roundoff of TF32."""
LIMIT = 30.0
"""How far products may be off, in units of roundoff: errors of a deep network accumulate."""
READS = ("item", "cpu", "numpy", "tolist", "__bool__", "__float__", "__int__", "nonzero")
"""Methods of a tensor on a device for which the host waits."""
PAIRS, VECTORS, STEPS = 3, 8, 5


class Reading(NamedTuple):
    """A quantity on the device, and what it may be."""

    part: str
    quantity: str
    value: float
    limit: float
    """Largest value that is right; infinite where nothing is asked."""
    units: str = "1"
    passes: float = np.nan
    """Of a time: in forward passes of the same batch."""


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let matrix products and convolutions on a GPU take TF32 inside, or forbid it."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32
    matmul.allow_tf32 = allowed
    try:
        # the others as they are: flags() sets them all
        with cudnn.flags(
            cudnn.enabled,
            cudnn.benchmark,
            cudnn.benchmark_limit,
            cudnn.deterministic,
            allow_tf32=allowed,
        ):
            yield
    finally:
        matmul.allow_tf32 = before


class Truth:
    """The dense J of the shipped denoiser at a noisy digit, in float64 on the CPU, and a sample."""

    def __init__(self, t: int) -> None:
        self.t, self.denoiser = t, mnist.load_denoiser(dtype=torch.float64)
        self.image = mnist.digits("held-out")[0][0].double()
        self.x_t = noisy_digit(self.denoiser, self.image, t, 0)
        self.J = JacobianOperator(self.denoiser, self.x_t, t).dense()
        self.largest = np.sort(np.abs(np.linalg.eigvals(self.J)))[::-1][:PAIRS]
        self.sampled = sampled(self.denoiser, self.image)

    def checks(self, device: str, name: str) -> list[Reading]:
        """Return the errors of products, dense J, eigenvalues and a sample on a device, in the
        precision of this name.
        """
        dtype, allowed = PRECISIONS[name]
        eps = TF32 if allowed else float(torch.finfo(dtype).eps)
        rng = np.random.default_rng(0)
        V = rng.standard_normal((len(self.J), VECTORS))
        with tf32(allowed), warnings.catch_warnings():
            # of half precision, differences tell little, and pairs converge to its noise
            warnings.simplefilter("ignore", DerivativeWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            denoiser = mnist.load_denoiser(device=device, dtype=dtype)
            J = JacobianOperator(denoiser, self.x_t.to(device, dtype), self.t)
            rtol = max(1e-9, 10 * eps)
            found = eigenpairs(J, PAIRS, rtol=rtol)
            values = np.sort(np.abs(found.values))[::-1]
            checks = [
                Reading(name, "J v", _apart(J @ V, self.J @ V), LIMIT * eps),
                Reading(name, "J^T u", _apart(J.T @ V, self.J.T @ V), LIMIT * eps),
                Reading(name, "leading |eigenvalues|", _apart(values, self.largest), 10 * rtol),
            ]
            if eps < 1e-3:
                checks += [Reading(name, "dense J", _apart(J.dense(), self.J), LIMIT * eps)]
            apart = _apart(sampled(denoiser, self.image.to(device, dtype)), self.sampled)
            verdict = 0.0 if dtype.itemsize < 4 or audit(J) else 1.0
        return [
            *checks,
            Reading(name, "error that J states", J.product_error, np.inf),
            Reading(name, "audit's faults", verdict, 0),
            Reading(name, f"sample of {STEPS} Newton steps", apart, 30 * LIMIT * eps),
        ]


def sampled(denoiser: Denoiser, image: Tensor) -> NDArray[np.float64]:
    """Return the sample of a half-known digit after a few Newton steps, flat."""
    constraint = Inpainting(image[None], masks.half(image.shape))
    noise = seeded_noise([0], denoiser.shape, image.device, image.dtype)
    *_, last = sample(denoiser, noise, denoiser.schedule.times(STEPS), constraint, Newton(steps=1))
    return np.asarray(last.x0.double().flatten().cpu().numpy())


class HostReads(TorchFunctionMode):
    """Counts for which tensors the host would wait, were they on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        to_host = name == "to" and any(str(a).startswith("cpu") for a in args[1:])
        self.count += name in READS or to_host
        return func(*args, **(kwargs or {}))


class ScalarReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts numbers that are read out below Python's methods."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def reads(run: Callable[[], Any]) -> int:
    """Return how often a run makes the host wait: what is read by methods, and below them."""
    with HostReads() as methods:
        run()
    with ScalarReads() as below:
        run()
    return max(methods.count, below.count)


def dry_counts(t: int) -> list[Reading]:
    """Return what needs no GPU: operations of products in forward passes, also on tensors without
    values, and how often the host waits.
    """
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][0], t, 0)
    J = JacobianOperator(denoiser, x_t, t)
    v = seeded_noise([1], denoiser.shape)
    J.products.vjp(v)  # chooses its path
    forward = flops(lambda: denoiser(x_t, t))
    empty = mnist.load_denoiser().to("meta")
    without = flops(lambda: empty(x_t.to("meta"), t))
    constraint = Inpainting(mnist.digits("held-out")[0][:1], masks.half(denoiser.shape))

    def sampling(steps: int) -> Callable[[], Any]:
        newton, noise = Newton(steps=1), seeded_noise([0], denoiser.shape)
        times = denoiser.schedule.times(steps)
        return lambda: [*sample(denoiser, noise, times, constraint, newton)]

    ahead, back = (partial(product, v) for product in (J.products.jvp, J.products.vjp))
    step = (reads(sampling(6)) - reads(sampling(3))) / 3  # also of tables that stay on the host
    return [
        Reading("dry", "forward pass on tensors without values", without / forward, 1, "passes"),
        Reading("dry", "operations of J v", flops(ahead) / forward, 1.05, "passes"),
        Reading("dry", "operations of J^T u", flops(back) / forward, 1.05, "passes"),
        Reading("dry", "waits of J v", reads(ahead), 0, "waits"),
        Reading("dry", "waits of J^T u", reads(back), 0, "waits"),
        Reading("dry", "waits of a sampling step, at most", step, np.inf, "waits"),
    ]


def flops(run: Callable[[], Any]) -> int:
    """Return the floating-point operations of matrix products and convolutions in a run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))
