"""Normalisations and the softmax against PyTorch's own Jacobian, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from linear_maps import SHAPE, check, in_channels_last, module, weights


def normed(norm):
    with torch.no_grad():
        for name, p in norm.named_parameters():
            p.copy_(weights(*p.shape) + ("weight" in name))
    return norm


def batch_norm():
    norm = normed(nn.BatchNorm2d(4)).double()
    norm.running_mean.copy_(weights(4))
    norm.running_var.copy_(weights(4).square() + 0.5)
    return norm.eval()


NORMALISATIONS = {
    "softmax": lambda x: torch.softmax(x, 1) * torch.log_softmax(x, -1),
    "group norm": lambda x: normed(nn.GroupNorm(2, 4)).double()(x),
    "group norm, plain": lambda x: F.group_norm(x, 4),
    "group norm, channels last": lambda x: F.group_norm(
        x.contiguous(memory_format=torch.channels_last), 2
    ),
    "layer norm": lambda x: normed(nn.LayerNorm(6)).double()(x),
    "layer norm, two": lambda x: F.layer_norm(x, (6, 6)),
    "rms norm": lambda x: F.rms_norm(x, (6,), weights(6)),
    "instance norm": lambda x: F.instance_norm(x),
    "batch norm": lambda x: batch_norm()(x),
    "variance": lambda x: x.var((1, -1)) + x.var(2, keepdim=True, correction=0).sum((2, 3))[0, 0],
    "deviation": lambda x: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 0.1) + x.std(),
    "length": lambda x: F.normalize(x, dim=1) / x.norm() + x.norm(dim=(2, 3), keepdim=True),
    "length, zero": lambda x: (x * (x[:, :1] > 0)).norm(dim=1),
    "length, of order 1": lambda x: x.norm(p=1, dim=1),
}
PATTERNS = {
    "statistics of the batch": lambda x: F.batch_norm(
        x, None, None, weights(4), weights(4, seed=1), training=True
    ),
    "instance norm": lambda x: module(lambda: nn.InstanceNorm2d(4, affine=True))(x),
    "instance norm 1d": lambda x: F.instance_norm(x.flatten(2)),
    "instance norm as it is exported": lambda x: exported(x, weights(x.shape[1])),
    "running statistics as they are exported": lambda x: (
        torch.ops.aten._native_batch_norm_legit_functional(
            x, None, None, weights(4), weights(4, seed=1) ** 2, False, 0.1, 1e-5
        )[0]
    ),
}


def exported(x, gamma):
    """Return the instance norm that an exported graph calls, with its statistics beside it."""
    merged, many = x.reshape(1, -1, *x.shape[2:]), gamma.repeat(len(x))
    norm = torch.ops.aten._native_batch_norm_legit.no_stats
    return norm(merged, many, many, True, 0.1, 1e-5)[0].reshape(x.shape)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", NORMALISATIONS)
def test_a_normalisation_is_a_projection_between_diagonals(name, channels_last, monkeypatch):
    if channels_last:
        in_channels_last(monkeypatch)
    check(NORMALISATIONS[name], NORMALISATIONS[name], weights(2, *SHAPE, seed=1))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", PATTERNS)
def test_statistics_of_the_batch_are_differentiated(name, batch):
    J = check(PATTERNS[name], PATTERNS[name], weights(batch, *SHAPE, seed=1), 1e-10)
    assert J.reads == ()
    assert J.borrowed == []
