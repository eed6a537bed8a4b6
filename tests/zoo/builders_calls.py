"""How a network is called: compiled, traced, exported, without gradients; and what it returns."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from zoo.parts import Ends, small
from zoo.registry import Wrapped, entry

pattern = partial(entry, "pattern", shape=(2, 8, 8), prediction="v")


@pattern(compiled=True)
def compiled_function():
    net = small().double().eval()
    return torch.compile(lambda x, t: net(x, t), backend="aot_eager")


@pattern(compiled=True)
def compiled_module():
    return torch.compile(small(), backend="aot_eager")


@pattern(compiled=True)
def compiled_in_part():
    inner_part = torch.compile(
        nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)),
        backend="eager",
    )
    return Ends(inner_part)


@pattern(compiled=True)
def compiled_and_frozen():
    net = small().double().eval().requires_grad_(False)
    return torch.compile(lambda x, t: net(x, t), backend="aot_eager", fullgraph=True)


@pattern()
def jit_traced():
    net = small().double().eval()
    return torch.jit.trace(
        net, (torch.randn(3, 2, 8, 8).double(), torch.full((3,), 500)), check_trace=False
    )


@pattern()
def jit_scripted():
    net = small().double().eval()
    return torch.jit.script(net)


@pattern()
def exported():
    net = small().double().eval()
    batch = torch.export.Dim("batch", min=1, max=256)
    given = (torch.randn(3, 2, 8, 8).double(), torch.full((3,), 500))
    module = torch.export.export(net, given, dynamic_shapes=({0: batch}, {0: batch})).module()
    return lambda x, t: module(x, t)  # it has no eval()


@pattern()
def fx_traced():
    return torch.fx.symbolic_trace(small())


@pattern()
def functional_call():
    net = small().double().eval()
    weights = dict(net.named_parameters())
    return lambda x, t: torch.func.functional_call(net, weights, (x, t))


@pattern()
def ensemble_by_vmap():
    nets = [small().double().eval() for _ in range(3)]
    weights, buffers = torch.func.stack_module_state(nets)

    def call(x, t):
        one = torch.func.functional_call
        return torch.vmap(lambda w, b: one(nets[0], (w, b), (x, t)))(weights, buffers).mean(0)

    return call


@pattern()
def called_under_no_grad():
    net = small().double().eval()
    return torch.no_grad()(lambda x, t: net(x, t))


@pattern()
def called_under_inference_mode():
    net = small().double().eval()
    return torch.inference_mode()(lambda x, t: net(x, t))


@dataclass
class Output:
    sample: torch.Tensor


@pattern()
def output_dataclass():
    return Wrapped(small(), lambda net, x, t: Output(net(x, t)))


@pattern()
def output_tuple():
    return Wrapped(small(), lambda net, x, t: (net(x, t),))


@pattern()
def output_dict():
    return Wrapped(small(), lambda net, x, t: {"sample": net(x, t)})


@pattern()
def output_tv_tensor():
    from torchvision import tv_tensors

    return Wrapped(small(), lambda net, x, t: tv_tensors.Image(net(x, t)))


@pattern()
def output_channels_last():
    return Wrapped(
        small().to(memory_format=torch.channels_last),
        lambda net, x, t: net(x.contiguous(memory_format=torch.channels_last), t),
    )


@pattern()
def output_is_a_view():
    return Wrapped(small(4), lambda net, x, t: net(torch.cat([x, x], 1), t)[:, 1:3])


@pattern()
def output_is_the_input():
    return lambda x, t: x


@pattern()
def output_is_constant():
    return lambda x, t: torch.ones_like(x)


@pattern()
def output_is_linear():
    return Wrapped(nn.Conv2d(2, 2, 3, padding=1), lambda net, x, t: net(x))


@pattern()
def sample_by_sample():
    return Wrapped(
        small(),
        lambda net, x, t: torch.cat([net(a[None], b[None]) for a, b in zip(x, t, strict=True)]),
    )


@pattern()
def calls_through_a_list():
    return Wrapped(
        small(), lambda net, x, t: torch.stack([net(a[None], t[:1])[0] for a in list(x)])
    )


@pattern()
def clamps_a_weight():
    """k-diffusion's QKNorm: a scale that is clamped in place in each forward pass."""
    scale = nn.Parameter(torch.tensor(10.0))

    def call(net, x, t):
        with torch.no_grad():
            net[1].clamp_(max=100.0)
        return torch.tanh(net[0](x, t) * net[1])

    network = Wrapped(nn.Module(), lambda net, x, t: call((net.inner, net.scale), x, t))
    network.net.inner, network.net.scale = small(), scale
    return network


@pattern()
def time_embedded_and_cached():
    """A cache that holds what it should: keyed on all that it depends on."""
    net = small()
    cache = {}

    def call(net, x, t):
        key = (tuple(t.tolist()), x.dtype)
        if key not in cache:
            cache[key] = torch.sin(t.to(x))[:, None, None, None]
        return net(x, t) + cache[key]

    return Wrapped(net, call)


@pattern()
def sparse_weight():
    net = small()
    matrix = (torch.randn(128, 128, dtype=torch.float64) * (torch.rand(128, 128) < 0.1)).to_sparse()
    return Wrapped(
        net, lambda net, x, t: net((matrix @ x.flatten(1).mT).mT.reshape(x.shape).tanh(), t)
    )


@pattern()
def sparse_csr_weight():
    net = small()
    matrix = (
        torch.randn(128, 128, dtype=torch.float64) * (torch.rand(128, 128) < 0.1)
    ).to_sparse_csr()
    return Wrapped(
        net, lambda net, x, t: net((matrix @ x.flatten(1).mT).mT.reshape(x.shape).tanh(), t)
    )


@pattern()
def sparse_parameter():
    net = small()
    net.register_parameter(
        "adjacency",
        nn.Parameter((torch.randn(128, 128).double() * (torch.rand(128, 128) < 0.1)).to_sparse()),
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            torch.sparse.mm(net.adjacency, x.flatten(1).mT).mT.reshape(x.shape).tanh(), t
        ),
    )


@pattern(compiled=True)
def flex_attention():
    from torch.nn.attention.flex_attention import flex_attention as flex

    def call(net, x, t):
        h = net.first(x).reshape(len(x), 2, 8, 64).mT
        return net.last(
            flex(
                h, h.flip(2), h.tanh(), score_mod=lambda s, b, head, i, j: s - 0.1 * (i - j).abs()
            ).mT.reshape(len(x), 16, 8, 8)
        )

    return Wrapped(small().requires_grad_(False), call)
