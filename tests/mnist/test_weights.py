import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch

import mnist
from jacobian_lab import InputError
from mnist.weights import SHIPPED, build_denoiser, save_model, write_card

ARCHITECTURE = {"channels": [32, 32, 32]}
CARD = {
    "kind": "denoiser",
    "architecture": ARCHITECTURE,
    "prediction": "v",
    "command": "jacobian-lab train denoiser",
}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    denoiser = build_denoiser(ARCHITECTURE, "v")
    torch.nn.init.normal_(denoiser.network.exit.weight)
    path = tmp_path / "denoiser"
    save_model(path, denoiser.network, CARD)
    return path, denoiser


def test_a_saved_model_comes_back_in_half_precisions_rounding(saved):
    path, denoiser = saved
    loaded = mnist.load_denoiser(path)
    for (name, ours), theirs in zip(
        loaded.network.state_dict().items(), denoiser.network.state_dict().values(), strict=True
    ):
        assert ours.dtype == torch.float32, name
        assert torch.equal(ours, theirs.half().float()), name
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert mnist.load_denoiser(path, dtype=torch.float64).network.exit.weight.dtype == torch.float64
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(loaded(x, 500), denoiser.eval()(x, 500), rtol=1e-2, atol=1e-2)


def test_names_that_differ_after_a_dot_are_different_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("lr0.001", "lr0.002")):
        torch.manual_seed(seed)
        save_model(Path(name), build_denoiser(ARCHITECTURE, "v").network, CARD)
        assert Path(f"{name}.safetensors").is_file()
        assert Path(f"{name}.json").is_file()
    one, two = (mnist.load_denoiser(tmp_path / name).network for name in ("lr0.001", "lr0.002"))
    same = mnist.load_denoiser(tmp_path / "lr0.001.safetensors").network
    assert not torch.equal(one.entry.weight, two.entry.weight)
    assert torch.equal(one.entry.weight, same.entry.weight)


def test_shipped_models_load_offline_and_state_where_they_come_from():
    for load, name in ((mnist.load_denoiser, "denoiser"), (mnist.load_classifier, "classifier")):
        model = load()
        card = json.loads((SHIPPED / f"{name}.json").read_text())
        assert sum(p.numel() for p in model.parameters()) == card["parameters"]
        assert {"command", "seed", "data", "steps", "scores", "sha256"} <= card.keys()
    assert card["longer_run"] if name == "denoiser" else card["scores"]["test_accuracy"] >= 0.993


def test_damage_is_noticed(saved):
    path, _ = saved
    file = path.with_suffix(".safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"damaged or not those of their card: their SHA-256 is .* Reinstall"
    ):
        mnist.load_denoiser(path)


def test_missing_files_are_named(saved):
    path, _ = saved
    path.with_suffix(".safetensors").unlink()
    with pytest.raises(
        InputError,
        match=r"denoiser.safetensors are missing: reinstall .*jacobian-lab train denoiser",
    ):
        mnist.load_denoiser(path)
    with pytest.raises(InputError, match=r"no model 'unet': .* Shipped are: classifier, denoiser"):
        mnist.load_denoiser("unet")
    with pytest.raises(InputError, match="does not exist"):
        mnist.load_denoiser(path.parent / "nothing")


def test_cards_of_another_kind_or_none_are_refused(saved):
    path, _ = saved
    with pytest.raises(InputError, match="describes a denoiser: expected a classifier"):
        mnist.load_classifier(path)
    path.with_suffix(".json").write_text("[1, 2")
    with pytest.raises(InputError, match="is not a model card"):
        mnist.load_denoiser(path)
    path.with_suffix(".json").write_text(20_000 * "[")
    with pytest.raises(InputError, match="is not a model card"):
        mnist.load_denoiser(path)
    for card in (
        {},
        {"architecture": {"layers": 3}, "prediction": "v"},
        {"architecture": {"channels": [20, 32, 32]}, "prediction": "v"},
        {"architecture": ARCHITECTURE, "prediction": "x"},
    ):
        write_card(path, {"kind": "denoiser"} | card)
        with pytest.raises(InputError, match="describes no model that can be built"):
            mnist.load_denoiser(path)


def test_weights_of_another_shape_are_refused(saved):
    path, _ = saved
    card = json.loads(path.with_suffix(".json").read_text())
    changed = card | {"architecture": {"channels": [32, 32, 64]}}
    path.with_suffix(".json").write_text(json.dumps(changed))
    with pytest.raises(
        InputError,
        match=r"card .* is damaged: .* on purpose, write .card_sha256.: .[0-9a-f]{64}. into it",
    ):
        mnist.load_denoiser(path)
    write_card(path, {key: value for key, value in changed.items() if key != "card_sha256"})
    with pytest.raises(InputError, match="do not fit the architecture"):
        mnist.load_denoiser(path)


def safetensors(header, length=None):
    return (len(header) if length is None else length).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04c",
        safetensors(b"{}", 2**62),
        safetensors(b"[]"),
        pickle.dumps({"exit.weight": 1}),
        safetensors(b"{" * 10_000),
        safetensors(
            b'{"exit.weight":{"dtype":"F16","shape":[4611686018427387904],"data_offsets":[0,9223372036854775807]}}'
        ),
        safetensors(b'{"exit.weight":{"dtype":"F16","shape":[1],"data_offsets":[-9,100]}}'),
        safetensors(
            b'{"exit.weight":{"dtype":"F16","shape":[],"data_offsets":[0,2]},"../a":{"dtype":"F16","shape":[],'
            b'"data_offsets":[0,2]}}'
        )
        + b"ab",
    ],
)
def test_harmful_weights_with_a_true_hash_execute_nothing(saved, content):
    path, _ = saved
    path.with_suffix(".safetensors").write_bytes(content)
    write_card(path, CARD | {"sha256": hashlib.sha256(content).hexdigest()})
    with pytest.raises(InputError, match="do not fit the architecture of their card"):
        mnist.load_denoiser(path)
