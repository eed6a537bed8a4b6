"""Operations that move entries, against PyTorch's own Jacobian, in float64."""

import pytest
import torch
from torch.nn import functional as F

from linear_maps import SHAPE, check, in_channels_last, weights

MOVES = {
    "padding": (
        lambda x: F.pad(x, (1, -1, 2, 0)) + F.pad(x, (1, 1, 1, 1), mode="reflect")[..., :8, :6]
    ),
    "pieces": lambda x: torch.cat(
        [x.chunk(2, 1)[1], x.split([1, 3], 1)[1] ** 2, weights(2, 1, 6, 6)], 1
    ),
    "unbound": (
        lambda x: (
            x.unbind(1)[2] * x.unbind(1)[0] + torch.stack([x[:, 0], weights(2, 6, 6)], 1).prod(1)
        )
    ),
    "slices": lambda x: x[:, ::2, 1:-1, -3:] + x[:, 1, None, None, 2, :3],
    "rearranged": (
        lambda x: (
            x.flip(-1)
            + x.roll(1, 2)
            + x.permute(0, 1, 3, 2)
            + x.transpose(2, 3).tril()
            + x.movedim(2, 3)
        )
    ),
    "repeated": lambda x: x.repeat(1, 2, 1, 1) + x.expand(2, 4, 6, 6).repeat_interleave(2, 1),
    "precision and back": lambda x: (x.float().double() + x).to(torch.float64),
}
PATTERNS = {
    "rearranged": lambda x: (
        x.roll((1, -2), (2, 3))
        + x.flip(1, 2)
        + x.index_select(1, torch.tensor([3, 3, 0, 1])) * x.rot90(1, (2, 3))
    ),
    "circular padding": lambda x: F.conv2d(
        F.pad(x, (1, 1, 2, 2), mode="circular"), weights(4, 4, 3, 3)
    ),
    "padding and border": (
        lambda x: (
            F.pad(x, (1, 0, 1, 0), mode="circular")[..., 1:, 1:]
            + x.diff(dim=-1, prepend=x[..., :1])
        )
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", MOVES)
def test_a_move_is_its_own_derivative(name, channels_last, monkeypatch):
    if channels_last:
        in_channels_last(monkeypatch)
    check(
        MOVES[name],
        MOVES[name],
        weights(2, *SHAPE, seed=1),
        1e-6 if name == "precision and back" else 1e-12,
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", PATTERNS)
def test_a_rearrangement_agrees_with_pytorch(name, batch):
    J = check(PATTERNS[name], PATTERNS[name], weights(batch, *SHAPE, seed=1), 1e-10)
    assert J.reads == ()
