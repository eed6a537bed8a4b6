"""Conditions that are held fixed reach the network, expanded to the batch."""

import pytest
import torch
from torch import nn

from jacobian_lab import RectifiedFlow
from jacobian_lab.diffusion.adapters.conditions import Beside, Conditioned, Packed
from jacobian_lab.diffusion.adapters.conventions import Convention


class Recorder(nn.Module):
    """A network that notes what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def forward(self, x, **given):
        self.seen = {"x": x, **given}
        return (x.clone(),)


def test_tensors_in_dictionaries_and_lists_are_buffers_expanded_to_the_batch():
    network = Recorder()
    held = {
        "encoder_hidden_states": torch.ones(1, 5, 4),
        "added_cond_kwargs": {"time_ids": torch.ones(1, 6), "resolution": None},
        "image_embeds": [torch.ones(1, 2, 4)],
    }
    conditioned = Conditioned(network, held, Convention(RectifiedFlow(), "flow", 1000))
    out = conditioned.double()(torch.zeros(3, 2, 2, 2).double(), torch.full((3,), 0.25))
    assert out.shape == (3, 2, 2, 2)
    seen = network.seen
    assert seen["timestep"].tolist() == [250.0] * 3
    assert seen["encoder_hidden_states"].shape == (3, 5, 4)
    assert seen["encoder_hidden_states"].dtype == torch.float64
    assert seen["added_cond_kwargs"]["time_ids"].shape == (3, 6)
    assert seen["added_cond_kwargs"]["resolution"] is None
    assert seen["image_embeds"][0].shape == (3, 2, 4)


@pytest.mark.parametrize(("backwards", "sign"), [(False, -1), (True, -1), (True, 1)])
def test_time_and_sign_are_the_conventions(backwards, sign):
    network = Recorder()
    convention = Convention(RectifiedFlow(), "flow", 1, backwards, sign)
    x = torch.randn(2, 1, 2, 2)
    out = Conditioned(network, {}, convention)(x, torch.full((2,), 0.25))
    assert torch.equal(out, sign * x)
    assert network.seen["timestep"].tolist() == [0.75 if backwards else 0.25] * 2


def test_channels_are_put_after_the_latent():
    network = Recorder()
    x, channels = torch.randn(2, 4, 2, 2), torch.randn(1, 5, 2, 2)
    Beside(network, channels)(x, timestep=torch.zeros(2))
    assert torch.equal(network.seen["x"], torch.cat([x, channels.expand(2, -1, -1, -1)], 1))


def test_packing_is_undone_and_knows_rows_and_columns():
    network = Recorder()
    x = torch.arange(2 * 3 * 4 * 6).float().reshape(2, 3, 4, 6)
    (out,) = Packed(network)(x, encoder_hidden_states=torch.zeros(2, 7, 1))
    assert torch.equal(out, x)
    patches, positions = network.seen["x"], network.seen["img_ids"]
    assert patches.shape == (2, 6, 12)
    assert positions.tolist() == [[0, i, j] for i in range(2) for j in range(3)]
    assert torch.equal(patches[0, 4].reshape(3, 2, 2), x[0, :, 2:4, 2:4])
    assert network.seen["txt_ids"].shape == (7, 3)
