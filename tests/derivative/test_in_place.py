"""Views and operations in place: J is that of what is computed."""

import pytest
import torch
from torch.nn import functional as F

from linear_maps import SHAPE, check, weights


def written(x, *steps, base=None):
    """A buffer, like x unless given, after the steps have written to it."""
    y = torch.zeros_like(x) if base is None else base(x)
    for step in steps:
        step(y)
    return y


def rotated(x):
    out = torch.empty_like(x)
    out[..., 0::2] = 0.8 * x[..., 0::2] - 0.6 * x[..., 1::2]
    out[..., 1::2] = 0.6 * x[..., 0::2] + 0.8 * x[..., 1::2]
    return out


def aliased_constant(x):
    buffer = torch.zeros_like(x)
    top, flat = buffer[:, :2], buffer.view(-1)  # views from before anything depends on x
    buffer.copy_(x**2)
    flat[3::7] *= 2
    return torch.cat([top, buffer[:, 2:]], 1) + flat.view_as(x)


def kept_then_written(x):
    y = x * 2
    z = y * x  # keeps y
    y.zero_()
    return z + y


def kept_constant_then_written(x):
    scale = torch.full((6,), 3.0, dtype=x.dtype)
    y = x * scale
    scale.mul_(2)
    return y * scale


def kept_without_a_rule_then_written(x):
    y = x.flatten(1).mean(1)[0] + weights(4, 4, 1, 1)
    z = F.conv2d(x, y)  # whose rule is for a constant weight
    y.zero_()
    return z


def attention_then_in_place(x):
    q = x[:, :2]
    o = F.scaled_dot_product_attention(q, x[:, 2:], x[:, :2] ** 2)
    return o.add_(q).mul_(o.detach().sum().sign())


def reshaped(x):
    y = x * 2
    w = y.flatten(2).sum(0)
    w.t_()
    y.unsqueeze_(1).transpose_(0, 1).squeeze_(0)
    return y * w.t_().reshape(4, 6, 6)


def in_place(x):
    y = F.conv2d(x, weights(4, 4, 1, 1))
    y += x
    y.relu_()
    return F.silu((y * 3).add_(x), inplace=True).mul_(2)


IN_PLACE = {
    "slice of a clone": lambda x: written(x, lambda y: y[:, 0].mul_(2), base=torch.tanh),
    "copied into a buffer": lambda x: written(x, lambda y: y.copy_(x**2)),
    "copied into another precision": (
        lambda x: written(
            x, lambda y: y.copy_(x), base=lambda x: x.new_empty(x.shape, dtype=torch.float32)
        ).double()
    ),
    "rotary embedding in slices": rotated,
    "slices, overlapping": lambda x: written(
        x, lambda y: y[..., :4].copy_(x[..., :4]), lambda y: y[..., 2:].add_(x[..., :4] ** 2)
    ),
    "a slice of zeros": lambda x: written(
        x, lambda y: y[..., 1:7].copy_(x), base=lambda x: x.new_zeros(*x.shape[:-1], 8)
    )[..., 1:],
    "zeroed": lambda x: written(
        x, lambda y: y[:, :2].zero_(), lambda y: y[:, 1].fill_(3), base=torch.sin
    ),
    "filled with an entry": lambda x: written(
        x, lambda y: y[:, 1].fill_(x[0, 0, 0, 0]), base=torch.sin
    ),
    "views from before": aliased_constant,
    "view, then in place": lambda x: (lambda y: torch.relu_(y.view(len(x), -1)).view_as(x) * y)(
        x * 1.0
    ),
    "transposed, then in place": lambda x: (lambda y: (y.mT.mul_(weights(6, 6)), y)[1])(x + 1),
    "diagonal": lambda x: (lambda y: (y.diagonal(dim1=-2, dim2=-1).mul_(x[..., 0]), y)[1])(x + 1),
    "overlapping windows": lambda x: (lambda y: (y.mul_(2), y.unfold(-1, 4, 1) * weights(3, 4))[1])(
        x + 1
    ),
    "as_strided": lambda x: (x + 0).as_strided((len(x), 5, 3), (144, 7, 2), 3) ** 2,
    "expanded, then its source written to": lambda x: (
        lambda y: (lambda z: (y.mul_(x[:, :1]), z * weights(4, 6, 6))[1])(y.expand(-1, 4, -1, -1))
    )(x[:, :1] * 2),
    "a set of indices": lambda x: written(
        x, lambda y: y.index_put_((torch.tensor([0]), torch.tensor([1, 1])), x[0, 2:, :], True)
    ),
    "item assignment by mask": lambda x: written(
        x, lambda y: y.__setitem__(weights(*x.shape) > 0, 0.5), base=torch.tanh
    ),
    "index_add": lambda x: written(x, lambda y: y.index_add_(1, torch.tensor([0, 0, 3, 1]), x**2)),
    "index_copy, index_fill": lambda x: written(
        x,
        lambda y: y.index_copy_(1, torch.tensor([3, 1]), x[:, :2]),
        lambda y: y.index_fill_(2, torch.tensor([1]), 0),
        base=torch.sin,
    ),
    "scatter": lambda x: written(
        x,
        lambda y: y.scatter_(1, torch.zeros(len(x), 1, 6, 6).long(), x[:, 1:2]),
        lambda y: y.scatter_add_(1, torch.ones(len(x), 2, 6, 6).long(), x[:, 1:3]),
    ),
    "masked_fill": lambda x: (x @ x).masked_fill_(torch.eye(6).bool(), -1e9).softmax(-1) @ x,
    "masked_scatter": lambda x: written(
        x, lambda y: y.masked_scatter_(weights(*x.shape) > 0, x**2), base=torch.sin
    ),
    "scores divided in place": lambda x: (x @ x.mT).div_(4).softmax(-1) @ x,
    "y = f(h), y += h": (
        lambda x: F.gelu(x).add_(x) + F.silu(x).mul_(x) + (x * torch.sigmoid(x)).add_(x)
    ),
    "clip after lerp (EDM2)": lambda x: torch.lerp(x, F.silu(x), 0.3).clip_(-0.5, 0.5),
    "normed, then in place": lambda x: (
        F.relu(F.group_norm(x, 2), inplace=True).add_(x) + F.relu(F.instance_norm(x), inplace=True)
    ),
    "softmax, then in place": lambda x: x.softmax(-1).mul_(x),
    "attention, then in place": attention_then_in_place,
    "kept, then written to": kept_then_written,
    "a constant kept, then written to": kept_constant_then_written,
    "kept for autograd, then written to": kept_without_a_rule_then_written,
    "names of lists": lambda x: (lambda a, b: (a.mul_(x[:, 2:]), torch.cat([a, b], 1))[1])(
        *(x * 2).chunk(2, 1)
    ),
    "out": lambda x: (lambda y: (torch.add(x, x**2, out=y[:, 1:]), y)[1])(
        x.new_zeros(len(x), 5, 6, 6)
    ),
    "out, of its own argument": lambda x: (lambda y: (torch.mul(y, x, out=y), y + 1)[1])(
        torch.sin(x)
    ),
    "data": lambda x: (lambda y: (setattr(y, "data", y.data * x), y * 2)[1])(torch.tanh(x)),
    "written through data": lambda x: (lambda y: (y.data.mul_(x), y * 2)[1])(torch.tanh(x)),
    "shapes": reshaped,
    "unsqueeze_": lambda x: torch.tanh(x) - x.mean(1).unsqueeze_(1),
    "running sums in a loop": lambda x: (
        lambda y: ([y[:, i].add_(y[:, i - 1] ** 2) for i in range(1, 4)], y)[1]
    )(x.clone()),
    "input written to": lambda x: (x.mul_(2), torch.tanh(x))[1],
    "piece written to without gradients": lambda x: torch.no_grad()(lambda a, b: a.mul_(b))(
        *(x + 0).chunk(2, 1)
    ),
    "in place": in_place,
}
HONEST = {  # as PyTorch must see it to find the derivative of what is computed
    "written through data": lambda x: torch.tanh(x) * x * 2,
    "data": lambda x: torch.tanh(x) * x * 2,
    "kept, then written to": lambda x: 2 * x * x,
    "input written to": lambda x: torch.tanh(2 * x),
    "piece written to without gradients": lambda x: x[:, :2] * x[:, 2:],
    "attention, then in place": lambda x: (lambda o: (o + x[:, :2]) * (o + x[:, :2]).sum().sign())(
        F.scaled_dot_product_attention(x[:, :2], x[:, 2:], x[:, :2] ** 2)
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", IN_PLACE)
def test_an_operation_in_place_agrees_with_pytorch(name, batch):
    J = check(
        IN_PLACE[name],
        HONEST.get(name, IN_PLACE[name]),
        weights(batch, *SHAPE, seed=1),
        1e-6 if name == "copied into another precision" else 1e-10,
    )
    assert J.reads == ()
