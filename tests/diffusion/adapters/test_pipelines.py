"""Pipelines are opened whole and safely, or refused with the remedy."""

import shutil
import socket
import sys

import pytest
import torch
from torch import nn

from jacobian_lab import InputError, load_latent

pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
import pipelines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SD 1.5's configuration, as diffusers saves it."""
    path = tmp_path_factory.mktemp("pipelines") / "sd1"
    pipelines.stable_diffusion().save_pretrained(path)
    return path


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of it, to be broken."""
    return shutil.copytree(folder, tmp_path / "broken")


def test_a_hub_id_comes_from_the_cache_and_is_not_fetched_unasked(folder, tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--nobody--model"
    shutil.copytree(folder, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    asked = []
    real = huggingface_hub.hf_hub_download

    def watched(*args, local_files_only, **options):
        asked.append(local_files_only)
        if not local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("no network here")
        return real(*args, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", watched)
    assert load_latent("nobody/model").denoiser.shape == (4, 8, 8)
    with pytest.raises(
        InputError,
        match="'nobody/other' is no folder, and not in the hub's cache: pass download=True",
    ):
        load_latent("nobody/other")
    assert asked == [True, True]
    with pytest.raises(InputError, match="the hub said: no network here"):
        load_latent("nobody/other", download=True)


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to reach another machine, which fails."""
    tried = []

    def refuses(*args, **_):
        tried.append(args)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuses)
    monkeypatch.setattr(socket.socket, "connect", refuses)
    monkeypatch.setattr(socket.socket, "connect_ex", refuses)
    return tried


def test_without_download_the_network_is_not_touched(folder, tmp_path, monkeypatch, no_network):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for hub_id in (
        "nobody/model",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "a/b",
        "nobody/model--x",
        "x/" + 95 * "y",
    ):
        with pytest.raises(
            InputError, match=r"is no folder, and not in the hub's cache: pass download=True"
        ):
            load_latent(hub_id)
    assert load_latent(folder).denoiser.shape == (4, 8, 8)
    cached = tmp_path / "cache" / "models--nobody--model"
    shutil.copytree(folder, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    assert load_latent("nobody/model").denoiser.shape == (4, 8, 8)
    # a download that was interrupted
    (cached / "snapshots" / "0123" / "vae" / "config.json").unlink()
    with pytest.raises(InputError, match=r"nobody/model|vae"):
        load_latent("nobody/model")
    assert not no_network


@pytest.mark.parametrize("shard", ["10GB", "300KB"])
def test_a_folder_of_another_variant_only_is_read(tmp_path, shard):
    pipeline = pipelines.stable_diffusion()
    pipeline.save_pretrained(tmp_path, variant="fp16", max_shard_size=shard)
    assert not list(tmp_path.glob("*/diffusion_pytorch_model.safetensors"))
    opened = load_latent(tmp_path).pipeline
    for part in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(opened, part).state_dict(), getattr(pipeline, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def drop_a_weight(folder):
    from safetensors.torch import load_file, save_file

    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_out.weight"]
    save_file(weights, file, metadata={"format": "pt"})


def pickle(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


def truncate(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:10000])


def use_a_vae_of_sixteen_channels(folder):
    pipelines.autoencoder(latent_channels=16).save_pretrained(folder / "vae")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "model_index.json").unlink(), "no pipeline in diffusers' format"),
        (lambda f: (f / "model_index.json").write_text("{"), "is not JSON"),
        (
            lambda f: pipelines.edit(f / "model_index.json", unet=[None, None]),
            "no unet and no transformer",
        ),
        (
            lambda f: pipelines.edit(f / "model_index.json", _class_name="KolorsPipeline"),
            "is a KolorsPipeline: expected one of Stable",
        ),
        (
            lambda f: pipelines.edit(f / "model_index.json", unet=["remote", "Unet"]),
            "remote.Unet: expected a class of diffusers",
        ),
        (lambda f: shutil.rmtree(f / "unet"), "no folder unet"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "no folder tokenizer"),
        (pickle, r"pickled weights only \(diffusion_pytorch_model.bin\).*save_pretrained"),
        (
            lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
            "no weights: expected a .safetensors file",
        ),
        (drop_a_weight, "lacks 1 weights, the first of them decoder.conv_out.weight"),
        (truncate, "diffusers cannot load"),
        (
            lambda f: pipelines.edit(
                f / "unet" / "config.json", block_out_channels=[16, 32, 64, 128]
            ),
            "diffusers cannot load",
        ),
        (
            lambda f: pipelines.edit(
                f / "scheduler" / "scheduler_config.json", prediction_type="score"
            ),
            "type is 'score'",
        ),
        (use_a_vae_of_sixteen_channels, "in_channels is 4, but the vae's latents have 16 channels"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # what diffusers says of the same harm
def test_a_broken_folder_is_told_clearly(broken, harm, message):
    harm(broken)
    with pytest.raises(InputError, match=message):
        load_latent(broken)


@pytest.mark.parametrize("source", ["no-such-folder", "/no/such/folder", "", 3, nn.Identity()])
def test_a_source_that_is_none_is_told_clearly(source):
    with pytest.raises(InputError, match="expected a folder"):
        load_latent(source)


def test_without_the_extra_the_remedy_is_told(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r'pip install "jacobian-lab\[sd\]"'):
        load_latent(folder)
