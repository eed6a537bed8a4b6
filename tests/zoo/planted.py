"""Networks with a fault, and healthy ones with the same machinery: the parts of `test_planted.py`.

A fault is a function from a plain network to one with something hidden, random, coarse or stateful
in it. Both plain networks, a small convolutional one and the architecture of the shipped denoiser,
leave their attention to `net.attend`.
"""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAULTS: dict[str, Fault] = {}
HEALTHY: dict[str, Fault] = {}
SHAPES = {"conv": (1, 8, 8), "unet": (1, 16, 16)}


@dataclass(frozen=True)
class Fault:
    """A way to spoil a network, and which outcomes are honest."""

    name: str
    spoil: Callable[[nn.Module], Callable]
    expect: frozenset[str]
    """Of "refused", "right", and the names of audit's checks of which one must fail."""
    twin: Callable[[nn.Module], Callable] | None
    """The network whose J is the truth, where it is not the spoiled one itself."""
    after: Callable | None = None
    """What is done to the network once the operator was made."""


def fault(*expect, twin=None):
    def register(spoil):
        FAULTS[spoil.__name__] = Fault(spoil.__name__, spoil, frozenset(expect), twin)
        return spoil

    return register


def healthy(spoil):
    HEALTHY[spoil.__name__] = Fault(spoil.__name__, spoil, frozenset(), None)
    return spoil


def changed(*expect):
    """Enter a change of the weights that happens after the operator was made."""

    def register(after):
        FAULTS[after.__name__] = Fault(
            after.__name__, lambda net: net, frozenset(expect or ("refused",)), None, after
        )
        return after

    return register


class Conv(nn.Module):
    """Convolutions, a normalisation, attention, a time."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.norm, self.qkv = nn.GroupNorm(2, 8), nn.Conv2d(8, 24, 1)
        self.register_buffer("shift", torch.full((1,), 0.1))

    def forward(self, x, t):
        h = self.norm(self.first(x) + self.shift) * (1 + 0.001 * t.to(x).view(-1, 1, 1, 1))
        q, k, v = self.qkv(h).flatten(2).mT.unsqueeze(1).chunk(3, dim=-1)
        h = h + self.attend(2 * q, k, v).squeeze(1).mT.reshape(h.shape)
        return self.last(F.silu(h))


def plain(kind, dtype=torch.float64):
    """Return the plain network of a kind, its attention replaceable."""
    torch.manual_seed(0)
    if kind == "conv":
        net = Conv()
    else:
        from mnist.unet import SelfAttention, UNet

        net = UNet(channels=(32, 32, 32))
        net.register_buffer("shift", torch.zeros(1))
        for module in net.modules():
            if isinstance(module, SelfAttention):
                module.forward = attending(module, net)
        for parameter in net.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.05)
    net.attend = softmax_attention
    return net.to(dtype).eval().requires_grad_(False)


def attending(module, net):
    def forward(x):
        b, c, height, width = x.shape
        q, k, v = (
            module.qkv(module.norm(x))
            .reshape(b, 3, module.heads, c // module.heads, height * width)
            .mT.unbind(1)
        )
        return x + module.project(net.attend(q, k, v).mT.reshape(b, c, height, width))

    return forward


def softmax_attention(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


class Calling(nn.Module):
    """`call(net, x, t)` as a network that holds `net`."""

    def __init__(self, net, call):
        super().__init__()
        self.net, self.call = net, call
        self.eval()

    def forward(self, x, t):
        return self.call(self.net, x, t)


def attend_by(kernel):
    """Return a spoiler that gives the attention to another kernel."""

    def spoil(net):
        net.attend = kernel
        return net

    return spoil


# ---- kernels that PyTorch cannot see, or sees wrongly
# ---------------------------------------------------------------------


def in_numpy(q, k, v):
    q, k, v = (a.detach().numpy() for a in (q, k, v))
    s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    p = np.exp(s - s.max(-1, keepdims=True))
    return torch.from_numpy(p / p.sum(-1, keepdims=True) @ v)


def gradients(q, k, v, g, factor=1.0):
    p = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
    dp = g @ v.mT
    ds = p * (dp - (dp * p).sum(-1, keepdim=True)) / math.sqrt(q.shape[-1])
    return factor * ds @ k, factor * ds.mT @ q, factor * p.mT @ g


def rank_one(g, size=0.01):
    """Add an error of rank one, of the given size for a gradient along it."""
    u = torch.linspace(-1, 1, g[0].numel()).to(g).reshape(1, *g.shape[1:])
    u = u / u.norm()
    return (
        g
        + size
        * u
        * (g * u).flatten(1).sum(1).reshape(-1, *[1] * (g.ndim - 1))
        * g[0].numel() ** 0.5
    )


def one_sample(g, batch, index, factor=1.05):
    scale = torch.ones(len(g), dtype=g.dtype)
    if len(g) == batch:
        scale[index] = factor
    return g * scale.reshape(-1, *[1] * (g.ndim - 1))


def custom_operation(name, backward=None):
    """Return attention as an operation of the library "planted", with a backward or without one."""

    @torch.library.custom_op(f"planted::{name}", mutates_args=())
    def operation(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return in_numpy(q, k, v)

    @operation.register_fake
    def _(q, k, v):
        return torch.empty_like(v)

    if backward is not None:
        operation.register_autograd(
            lambda ctx, g: backward(*ctx.saved_tensors, g),
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
        )
    return operation


def autograd_function(backward):
    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            ctx.save_for_backward(q, k, v)
            return in_numpy(q, k, v)

        @staticmethod
        def backward(ctx, g):
            return backward(*ctx.saved_tensors, g)

    return Attention.apply


def by_memmove(q, k, v):
    found = softmax_attention(q, k, v).detach().contiguous()
    out = torch.empty_like(found)
    ctypes.memmove(out.data_ptr(), found.data_ptr(), found.numel() * found.element_size())
    return out


def in_a_thread(q, k, v):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: softmax_attention(q.detach(), k.detach(), v.detach())).result()


def by_lists(q, k, v):
    return torch.tensor(softmax_attention(q, k, v).tolist(), dtype=v.dtype)


def by_data(q, k, v):
    return softmax_attention(q.data, k.data, v.data)


def by_shared_memory(q, k, v):
    out = softmax_attention(q, k, v)
    out.detach().numpy()[...] *= 1 + np.abs(out.detach().numpy())
    return out


def by_dlpack(q, k, v):
    return torch.from_dlpack(np.ascontiguousarray(in_numpy(q, k, v).numpy()))


HIDDEN = {
    "numpy": in_numpy,
    "operation_without_autograd": custom_operation("bare"),
    "memmove": by_memmove,
    "thread": in_a_thread,
    "lists": by_lists,
    "data": by_data,
    "shared_memory": by_shared_memory,
    "dlpack": by_dlpack,
    "operation_with_zero_backward": custom_operation("zero", lambda q, k, v, g: (None, None, None)),
    "operation_backward_1_percent": custom_operation(
        "percent", lambda q, k, v, g: gradients(q, k, v, g, 1.01)
    ),
    "operation_backward_per_mille": custom_operation(
        "permille", lambda q, k, v, g: gradients(q, k, v, g, 0.999)
    ),
    "operation_backward_without_keys": custom_operation(
        "keyless", lambda q, k, v, g: (gradients(q, k, v, g)[0], None, gradients(q, k, v, g)[2])
    ),
    "operation_backward_rank_one": custom_operation(
        "rank", lambda q, k, v, g: gradients(q, k, v, rank_one(g))
    ),
    "operation_wrong_7th_of_16": custom_operation(
        "seventh", lambda q, k, v, g: gradients(q, k, v, one_sample(g, 16, 7))
    ),
    "operation_wrong_last_of_17": custom_operation(
        "last", lambda q, k, v, g: gradients(q, k, v, one_sample(g, 17, 16))
    ),
    "function_backward_1_percent": autograd_function(
        lambda q, k, v, g: gradients(q, k, v, g, 1.01)
    ),
    "function_backward_per_mille": autograd_function(
        lambda q, k, v, g: gradients(q, k, v, g, 0.999)
    ),
    "function_backward_rank_one": autograd_function(
        lambda q, k, v, g: gradients(q, k, v, rank_one(g))
    ),
    "function_wrong_7th_of_16": autograd_function(
        lambda q, k, v, g: gradients(q, k, v, one_sample(g, 16, 7))
    ),
    "function_wrong_last_of_17": autograd_function(
        lambda q, k, v, g: gradients(q, k, v, one_sample(g, 17, 16))
    ),
}
for _name, _kernel in HIDDEN.items():
    FAULTS[f"hidden_{_name}"] = Fault(
        f"hidden_{_name}",
        attend_by(_kernel),
        frozenset(
            {"refused", "right", "differences", "derivative", "adjoint", "autograd", "many at once"}
        ),
        None,
    )


# ---- numbers read out, noise, state
# ----------------------------------------------------------------------------------------


def after(function, *expect, name, twin=None):
    """Enter a fault that changes the output y of the plain network: `function(y, x)`."""
    FAULTS[name] = Fault(
        name,
        lambda net: Calling(net, lambda net, x, t: function(net(x, t), x)),
        frozenset(expect),
        twin,
    )


after(
    lambda y, x: y / y.std().item(), "refused", "right", "samples apart", name="number_of_the_batch"
)
after(
    lambda y, x: torch.stack([one / one.std().item() for one in y]),
    "refused",
    "right",
    name="number_of_each_sample",
)
after(
    lambda y, x: torch.stack([one / float(one.abs().max()) for one in y]),
    "refused",
    "right",
    name="largest_read_out",
)
after(
    lambda y, x: torch.stack([one * (1 + one.detach().numpy().std()) for one in y]),
    "refused",
    "right",
    name="number_by_numpy",
)
after(
    lambda y, x: torch.stack(
        [one * math.exp(-a.mean().item()) for one, a in zip(y, x, strict=True)]
    ),
    "refused",
    "right",
    name="mean_of_the_input_read_out",
)
after(
    lambda y, x: torch.stack([one * max(one.flatten().tolist()) for one in y]),
    "refused",
    "right",
    name="list_read_out",
)
after(lambda y, x: y + 0.1 * torch.randn_like(y), "refused", name="noise")
after(lambda y, x: y + 1e-3 * torch.randn_like(y), "refused", name="noise_small")
after(
    lambda y, x: (
        y + 1e-2 * torch.from_numpy(np.random.default_rng().standard_normal(y.shape)).to(y)
    ),
    "refused",
    name="noise_of_numpy",
)
after(lambda y, x: y * (1 + 0.01 * random.random()), "refused", name="noise_of_python")
after(
    lambda y, x: y + 0.1 * torch.randn_like(y) if torch.is_grad_enabled() else y,
    "refused",
    "repeatable",
    "gradients on",
    "derivative",
    "autograd",
    "differences",
    "adjoint",
    name="noise_with_gradients_only",
)
after(
    lambda y, x: y * 1.1 if torch.is_grad_enabled() else y,
    "refused",
    "repeatable",
    "gradients on",
    "derivative",
    "autograd",
    "differences",
    name="another_function_with_gradients",
)
after(
    lambda y, x: y * 1.1 if x.requires_grad else y,
    "refused",
    "repeatable",
    "gradients on",
    "derivative",
    "autograd",
    "differences",
    name="another_function_if_x_requires_gradients",
)
after(lambda y, x: F.dropout(y, 0.1, training=True), "refused", name="dropout_always")
after(
    lambda y, x: y - y.mean(0, keepdim=True) * 0.5,
    "refused",
    "samples apart",
    name="mean_of_the_batch",
)
after(
    lambda y, x: (y - y.mean((0, 2, 3), keepdim=True)) / y.std((0, 2, 3), keepdim=True),
    "refused",
    "samples apart",
    name="statistics_of_the_batch",
)
after(
    lambda y, x: F.batch_norm(y, None, None, training=True),
    "refused",
    "samples apart",
    name="batch_norm_training",
)
after(
    lambda y, x: softmax_attention(y.flatten(1), y.flatten(1), y.flatten(1)).reshape(y.shape) + y,
    "refused",
    "samples apart",
    name="attention_over_the_batch",
)
after(
    lambda y, x: y * (1 + 0.01 * len(y)), "refused", "samples apart", name="scale_of_the_batch_size"
)
after(lambda y, x: y.roll(1, 0), "refused", "samples apart", name="samples_rotated")
after(
    lambda y, x: torch.round(y * 127) / 127,
    "refused",
    "differences",
    "secant",
    "precision",
    name="quantised_output",
    twin=lambda net: net,
)
after(
    lambda y, x: torch.floor(y * 8) / 8,
    "refused",
    "differences",
    "secant",
    name="quantised_coarsely",
    twin=lambda net: net,
)
after(
    lambda y, x: (y > 0).to(y),
    "refused",
    "differences",
    "secant",
    name="step_function",
    twin=lambda net: net,
)
after(
    lambda y, x: y.half().to(y),
    "refused",
    "right",
    "precision",
    name="output_in_half",
    twin=lambda net: net,
)
after(
    lambda y, x: y.bfloat16().to(y),
    "refused",
    "right",
    "precision",
    name="output_in_bfloat16",
    twin=lambda net: net,
)
after(lambda y, x: y.detach(), "refused", "right", name="output_detached")
after(lambda y, x: y + (y * x).detach(), "refused", "right", name="part_detached")
after(
    lambda y, x: torch.from_numpy(np.tanh(y.detach().numpy())),
    "refused",
    "right",
    name="output_by_numpy",
)
after(lambda y, x: y.clamp(-1e-6, 1e-6), "refused", "right", "secant", name="clamp_saturated")
after(
    lambda y, x: y * np.float64(y.detach().numpy().sum()) if len(y) == 1 else y * 0,
    "refused",
    "samples apart",
    name="number_of_one_sample_only",
)
after(
    lambda y, x: y * (1 + 0.01 * (torch.rand(()) > 0.9)),
    "refused",
    "repeatable",
    "gradients on",
    "derivative",
    "differences",
    "autograd",
    "adjoint",
    "samples apart",
    name="noise_now_and_then",
)


def half_part(dtype):
    def call(net, x, t):
        return net(x.to(dtype).to(x.dtype), t)

    return lambda net: Calling(net, call)


for _dtype in (torch.float16, torch.bfloat16):
    _name = f"input_in_{str(_dtype).removeprefix('torch.')}"
    FAULTS[_name] = Fault(
        _name, half_part(_dtype), frozenset({"refused", "right", "precision"}), lambda net: net
    )


@fault("refused", "right", "precision", twin=lambda net: net)
def autocast_inside(net):
    def call(net, x, t):
        with torch.autocast("cpu", torch.bfloat16):
            return net(x, t).to(x.dtype)

    return Calling(net, call)


def guarded(context):
    def call(net, x, t):
        with context():
            out = net(x, t)
        return out.clone()

    return lambda net: Calling(net, call)


for _name, _context in (
    ("no_grad_inside", torch.no_grad),
    ("inference_mode_inside", torch.inference_mode),
):
    FAULTS[_name] = Fault(_name, guarded(_context), frozenset({"refused", "right"}), None)


def stateful(step, *expect, name):
    """Enter a network with a memory: `step(memory, net, x, t)`."""

    def spoil(net):
        memory = {}
        return Calling(net, lambda net, x, t: step(memory, net, x, t))

    FAULTS[name] = Fault(name, spoil, frozenset(expect or ("refused", "repeatable")), None)


def counted(memory):
    memory["calls"] = memory.get("calls", 0) + 1
    return memory["calls"]


def cached(memory, key, value):
    if key not in memory:
        memory[key] = value.detach().clone()
    return memory[key]


def previous(memory, key, value, start):
    before = memory.get(key, start)
    memory[key] = value
    return before


STATE = (
    "refused",
    "repeatable",
    "differences",
    "derivative",
    "gradients on",
    "autograd",
    "samples apart",
)
stateful(lambda m, net, x, t: net(x, t) * (1 + 0.01 * counted(m)), name="counter")
stateful(lambda m, net, x, t: net(x, t) * (1 + 1e-4 * counted(m)), name="counter_slow")
stateful(
    lambda m, net, x, t: net(x, t) * (1 + 0.1 * (counted(m) % 2)), *STATE, name="even_and_odd_calls"
)
stateful(
    lambda m, net, x, t: net(x, t) * (1 + 0.3 * max(0, 4 - counted(m))),
    *STATE,
    name="settles_after_four_calls",
)
stateful(
    lambda m, net, x, t: net(x, t) * (1 + 0.3 * max(0, 2 - counted(m))),
    *STATE,
    name="first_call_differs",
)
stateful(
    lambda m, net, x, t: net(x, t) + 0.5 * cached(m, int(t[0]), net(x, t))[:1],
    *STATE,
    name="cache_of_the_time",
)
stateful(
    lambda m, net, x, t: net(x, t) + 0.5 * cached(m, x.shape, net(x, t)),
    *STATE,
    name="cache_of_the_shape",
)
stateful(
    lambda m, net, x, t: net(x, t) * (1 + 0.001 * previous(m, "t", float(t[0]), 0.0)),
    *STATE,
    name="time_of_the_call_before",
)
stateful(
    lambda m, net, x, t: (
        net(x, t)
        + 0.1 * previous(m, "y", x.mean(0, keepdim=True).detach(), torch.zeros_like(x[:1]))
    ),
    *STATE,
    name="input_of_the_call_before",
)


def running(memory, net, x, t):
    memory["mean"] = 0.9 * memory.get("mean", 0.0) + 0.1 * float(x.abs().mean())
    return net(x, t) * (1 + memory["mean"])


stateful(running, *STATE, name="running_statistics")


@fault(*STATE)
def batch_norm_with_running_statistics(net):
    """In training mode where no one sees it: not among the network's modules."""
    norm = nn.BatchNorm2d(1, momentum=0.5).to(next(net.parameters()).dtype).train()
    return Calling(net, lambda net, x, t: norm(net(x, t)) + norm.running_mean)


@fault("refused")
def dropout_in_training_mode(net):
    return nn.Module.train(
        Calling(net, lambda net, x, t: F.dropout(net(x, t), 0.1, training=net.training))
    )


@fault("refused")
def training_mode_of_a_part(net):
    network = Calling(net, lambda net, x, t: network.extra(net(x, t)))
    network.extra = nn.Dropout(0.2).train()
    return network


@fault("refused", "right", "input")
def writes_into_its_input(net):
    return Calling(net, lambda net, x, t: net(x.add_(0.1), t))


@fault("refused", "right", "input")
def relu_of_its_input_in_place(net):
    return Calling(net, lambda net, x, t: net(F.relu(x, inplace=True), t))


@fault("refused", "right", "input")
def writes_into_a_slice_of_its_input(net):
    def call(net, x, t):
        x[..., 0, 0] = 0.0
        return net(x, t)

    return Calling(net, call)


@fault("refused", "right", "input")
def writes_into_its_input_by_numpy(net):
    def call(net, x, t):
        x.detach().numpy()[...] *= 0.9
        return net(x, t)

    return Calling(net, call)


@fault("refused", "right")
def time_written_to(net):
    return Calling(net, lambda net, x, t: net(x, t.clone().add_(1)))


# ---- weights that change after the operator was made
# -----------------------------------------------------------------------


def weight(net):
    return next(p for p in net.parameters() if p.ndim == 4)


@changed()
def changed_by_mul(net):
    with torch.no_grad():
        weight(net).mul_(1.5)


@changed()
def changed_by_load_state_dict(net):
    net.load_state_dict({name: 1.5 * value for name, value in net.state_dict().items()})


@changed()
def changed_by_average(net):
    for parameter in net.parameters():
        parameter.data.lerp_(torch.zeros_like(parameter), 0.3)


@changed()
def changed_by_copies_of_an_average(net):
    for parameter in net.parameters():
        parameter.data.copy_(0.7 * parameter.data)


@changed()
def changed_by_vector_to_parameters(net):
    vector = torch.nn.utils.parameters_to_vector(net.parameters())
    torch.nn.utils.vector_to_parameters(1.5 * vector, net.parameters())


@changed()
def changed_by_data(net):
    weight(net).data = 1.5 * weight(net).data


@changed()
def changed_by_numpy(net):
    weight(net).detach().numpy()[...] *= 1.5


@changed()
def changed_by_one_entry_in_numpy(net):
    weight(net).detach().numpy().reshape(-1)[3] += 1.0


@changed()
def changed_by_set(net):
    with torch.no_grad():
        weight(net).set_((1.5 * weight(net)).contiguous())


@changed()
def changed_by_another_module(net):
    name, module = next((n, m) for n, m in net.named_children() if isinstance(m, nn.Conv2d))
    other = nn.Conv2d(module.in_channels, module.out_channels, 3, padding=1).to(module.weight.dtype)
    setattr(net, name, other.requires_grad_(False).eval())


@changed()
def changed_by_another_parameter(net):
    module = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    module.weight = nn.Parameter(1.5 * module.weight.detach(), requires_grad=False)


@changed()
def changed_by_a_buffer(net):
    net.shift += 0.5


@changed()
def changed_by_a_parametrisation(net):
    module = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    torch.nn.utils.parametrizations.weight_norm(module)
    with torch.no_grad():
        module.parametrizations.weight.original0.mul_(1.5)


@changed("refused", "right")
def changed_by_dtype(net):
    net.float() if next(net.parameters()).dtype == torch.float64 else net.double()


@changed()
def changed_by_an_optimiser(net):
    parameters = [p.requires_grad_() for p in net.parameters()]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(parameters, lr=0.1).step()
    net.requires_grad_(False)


@changed()
def changed_by_pruning(net):
    from torch.nn.utils import prune

    prune.l1_unstructured(next(m for m in net.modules() if isinstance(m, nn.Conv2d)), "weight", 0.5)


# ---- healthy networks with the same machinery
# --------------------------------------------------------------------------------


def sound(function, name):
    HEALTHY[name] = Fault(name, lambda net: Calling(net, function), frozenset(), None)


def right_operation(kernel):
    @torch.library.custom_op("planted::right", mutates_args=())
    def operation(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return kernel(q, k, v).contiguous()

    @operation.register_fake
    def _(q, k, v):
        return torch.empty_like(v)

    operation.register_autograd(
        lambda ctx, g: gradients(*ctx.saved_tensors, g),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    return operation


for _name, _kernel in {
    "attention_by_softmax": softmax_attention,
    "attention_fused": F.scaled_dot_product_attention,
    "attention_by_einsum": lambda q, k, v: torch.einsum(
        "bhqk,bhkc->bhqc",
        (torch.einsum("bhqc,bhkc->bhqk", q, k) / math.sqrt(q.shape[-1])).softmax(-1),
        v,
    ),
    "attention_as_a_right_operation": right_operation(softmax_attention),
    "attention_as_a_right_function": autograd_function(gradients),
}.items():
    HEALTHY[_name] = Fault(_name, attend_by(_kernel), frozenset(), None)


sound(lambda net, x, t: net(x, t), "plain")
sound(lambda net, x, t: net(x, t) * net.shift.new_ones(()).item(), "number_of_a_weight_read_out")
sound(lambda net, x, t: net(x, t) * (1 + 1e-3 * float(t[0].item())), "number_of_the_time_read_out")
sound(
    lambda net, x, t: net(x, t) / net(x, t).std((1, 2, 3), keepdim=True),
    "standard_deviation_as_a_tensor",
)
sound(
    lambda net, x, t: (
        net(x, t) + 0.1 * torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0)).to(x)
    ),
    "noise_of_a_fixed_seed",
)
sound(lambda net, x, t: F.dropout(net(x, t), 0.5, training=False), "dropout_in_evaluation")
sound(lambda net, x, t: net(x.clone().add_(0.1), t), "writes_into_a_clone")
sound(lambda net, x, t: F.relu(net(x, t) + 10, inplace=True), "relu_in_place_of_its_own")
sound(lambda net, x, t: net(x, t).clamp(-1e6, 1e6), "clamp_not_reached")
sound(lambda net, x, t: net(x, t).clamp_(-1e6, 1e6), "clamp_in_place")
sound(lambda net, x, t: net(x, t) + net.shift.detach(), "weight_detached")
sound(
    lambda net, x, t: torch.no_grad()(lambda: net(x, t))() * 0 + net(x, t),
    "part_without_gradients_times_zero",
)
sound(
    lambda net, x, t: torch.utils.checkpoint.checkpoint(net, x, t, use_reentrant=False),
    "checkpointed",
)
sound(
    lambda net, x, t: torch.cat([net(a[None], b[None]) for a, b in zip(x, t, strict=True)]),
    "sample_by_sample",
)
sound(lambda net, x, t: net(x.contiguous(memory_format=torch.channels_last), t), "channels_last")
sound(lambda net, x, t: torch.tanh(net(x, t)), "bounded_output")
sound(lambda net, x, t: net(x, t) + x, "skip")
sound(lambda net, x, t: 1e-6 * net(x, t), "tiny_output")
sound(lambda net, x, t: 1e6 * net(x, t), "huge_output")
sound(lambda net, x, t: net(x, t).abs(), "kinks")
sound(
    lambda net, x, t: F.leaky_relu(torch.where(x > 0, x, 0.5 * x) + net(x, t), 0.3),
    "branches_by_entry",
)
sound(lambda net, x, t: net(x, t) * (2 if x.abs().max() > 1e-3 else 1), "branch_by_a_number")
sound(lambda net, x, t: net(x, t).double().to(x.dtype), "wider_precision_inside")
sound(
    lambda net, x, t: net(F.pad(x, (1, 1, 1, 1), mode="circular")[..., 1:-1, 1:-1], t),
    "circular_padding",
)
sound(lambda net, x, t: net(x, t) - net(x.flip(-1), t).flip(-1), "equivariant_pair")
sound(lambda net, x, t: 3 * net(x, t) - 2 * net(x, t * 0), "guided")
sound(lambda net, x, t: torch.vmap(lambda a, b: net(a[None], b[None])[0])(x, t), "vmapped")
sound(lambda net, x, t: x * 0.5, "linear_only")


@healthy
def counter_that_nobody_reads(net):
    memory = {}

    def call(net, x, t):
        counted(memory)
        return net(x, t)

    return Calling(net, call)


@healthy
def cache_of_all_that_matters(net):
    memory = {}

    def call(net, x, t):
        key = (tuple(t.tolist()), x.dtype)
        if key not in memory:
            memory[key] = torch.sin(t.to(x)).reshape(-1, 1, 1, 1)
        return net(x, t) * (1 + 0.1 * memory[key])

    return Calling(net, call)


@healthy
def batch_norm_in_evaluation(net):
    norm = nn.BatchNorm2d(1).to(next(net.parameters()).dtype).eval()
    norm.running_mean += 0.3
    network = Calling(net, lambda net, x, t: network.norm(net(x, t)))
    network.norm = norm
    return network


@healthy
def clamps_a_weight_that_stays(net):
    def call(net, x, t):
        with torch.no_grad():
            net.shift.clamp_(max=100.0)
        return net(x, t)

    return Calling(net, call)


@healthy
def weights_of_a_parametrisation(net):
    torch.nn.utils.parametrizations.weight_norm(
        next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    )
    return net.eval().requires_grad_(False)


@healthy
def weights_that_require_gradients(net):
    return net.requires_grad_()
