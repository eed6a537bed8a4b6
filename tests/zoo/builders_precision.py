"""Parts in lower precision: the truth is the same network in float64. And networks whose J is zero
nearly everywhere.
"""

from functools import partial

import torch

from zoo.parts import Ends, Layer, inner, small
from zoo.registry import Wrapped, entry

coarse = partial(entry, "half precision", shape=(2, 8, 8), prediction="v")


def behind_casts(dtype):
    net = small()
    net.inner.coarse = True
    net.inner[2].coarse = True
    net.inner.to(dtype)
    return Wrapped(net, lambda net, x, t: net.last(net.inner(net.first(x).to(dtype)).to(x.dtype)))


def doubled(network):
    for module in network.modules():
        module.coarse = False
    return network


@coarse(twin=lambda: doubled(behind_casts(torch.float32)))
def float32_behind_casts():
    return behind_casts(torch.float32)


@coarse(twin=lambda: doubled(behind_casts(torch.float16)))
def float16_behind_casts():
    return behind_casts(torch.float16)


@coarse(twin=lambda: doubled(behind_casts(torch.bfloat16)))
def bfloat16_behind_casts():
    return behind_casts(torch.bfloat16)


def autocast(dtype, on=True):
    net = small()
    net.coarse = on  # float32, which autocast rounds; it leaves float64 alone

    def call(net, x, t):
        with torch.autocast("cpu", dtype, enabled=on):
            return net(x.float(), t).to(x.dtype)

    return Wrapped(net, call)


@coarse(twin=lambda: autocast(torch.bfloat16, False))
def autocast_bfloat16():
    return autocast(torch.bfloat16)


@coarse(twin=lambda: autocast(torch.float16, False))
def autocast_float16():
    return autocast(torch.float16)


@coarse()
def softmax_in_float32():
    return inner(lambda h: h * h.float().softmax(1).to(h.dtype))


@coarse()
def output_rounded_to_float16():
    return Wrapped(small(), lambda net, x, t: net(x, t).half().to(x.dtype))


@coarse()
def output_rounded_to_bfloat16():
    return Wrapped(small(), lambda net, x, t: net(x, t).bfloat16().to(x.dtype))


@coarse()
def input_rounded_to_float16():
    return Wrapped(small(), lambda net, x, t: net(x.half().to(x.dtype), t))


@coarse()
def float16_tight_range():
    """A cotangent that overflows in float16 while the values do not (Sana)."""
    return Ends(Layer(lambda h: ((h * 1e-4).half().to(h.dtype) * 1e4).tanh()))


@coarse(outcome="told")
def quantised_output():
    return Wrapped(small(), lambda net, x, t: torch.round(net(x, t) * 127) / 127)


@coarse(outcome="told")
def quantised_weights_and_activations():
    return Ends(Layer(lambda h: torch.fake_quantize_per_tensor_affine(h, 0.05, 0, -128, 127)))


@coarse(outcome="told")
def sign_network():
    return Ends(Layer(lambda h: torch.sign(h) * 0.3))
