import pytest
import torch
from torch import nn

from jacobian_lab import InputError
from studies.benchmarks import (
    full_size,
)
from studies.benchmarks.full_size import Alive, Count, FullSize, count, passes
from studies.frame.study import perform


def test_bytes_alive_of_a_chain_of_operations():
    x = torch.empty(1000, device="meta")
    with Alive([x]) as alive:
        y = x + 1  # 4,000 bytes
        z = y * 2  # 8,000
        del y
        z = z.view(10, 100)  # a view owns nothing
        w = torch.cat([z, z])  # 4,000 + 8,000
        del z
        assert alive.now == 8000
        del w
    assert alive.peak == 12000
    assert alive.now == 0


def test_a_linear_layer_counts_as_on_paper():
    layer = nn.Linear(30, 20, bias=False, device="meta").requires_grad_(False)
    found = count(layer, lambda x: layer(x).square(), torch.empty(1, 30, device="meta"))
    assert found.parameters == 600
    assert found.forward == 2 * 600
    assert found.vjp == 4 * 600  # forward, and the transposed layer
    assert found.forward_bytes == 2 * 20 * 4  # the layer's output and its square
    assert found.vjp_bytes >= found.forward_bytes + 20 * 4


def test_the_sampler_spends_what_the_papers_setting_says():
    assert passes() == {"free": 20, "constrained": 220}


def test_the_table_states_the_counts_and_what_a_sample_costs(monkeypatch, tmp_path):
    counts = {
        name: Count(10**9, 2 * 10**12, 10**9, 5 * 10**12, 4 * 10**9)
        for name in ("model", "decoder")
    }
    monkeypatch.setattr(full_size, "networks", lambda: counts)
    outcome = perform(full_size.STUDY, FullSize(flops=1e13, out=tmp_path / "run"))
    head, model, decoder = outcome.answer.splitlines()
    assert head.split("  ")[0] == "network"
    assert model.split() == ["model", "1000", "2", "2", "1", "5", "4", "4", "44"]
    assert decoder.split() == ["decoder", "1000", "2", "2", "1", "5", "4"]
    assert not list(outcome.folder.glob("figure.*"))  # nothing to draw
    assert perform(full_size.STUDY, FullSize(flops=1e13, out=tmp_path / "run")).how.startswith(
        "reused"
    )


def test_bad_speed_is_named():
    with pytest.raises(InputError, match="--flops must be positive: got 0"):
        FullSize(flops=0.0)
