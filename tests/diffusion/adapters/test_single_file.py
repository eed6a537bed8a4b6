"""One file of weights: safetensors with a configuration; pickles are refused by name."""

import pytest
import torch

from jacobian_lab import InputError, load

from conftest import relative


@pytest.mark.parametrize("name", ["model.ckpt", "a/b.pt", "net.PTH", "diffusion.bin", "x.pkl"])
def test_a_pickle_is_refused_with_the_safe_way_out(name, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"is a pickle, which can run code.*weights_only=True"):
        load(str(tmp_path / name), config=tmp_path)


def test_a_file_that_is_missing_or_without_its_configuration_is_told(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "model.safetensors", config=tmp_path)
    with pytest.raises(InputError, match="the family 'file' needs the option config"):
        load("model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A pipeline, its folder, and its weights by their original names."""
    pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
    pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
    import pipelines
    import single_file

    pipeline, folder = pipelines.stable_diffusion(), tmp_path_factory.mktemp("single")
    pipeline.save_pretrained(folder / "folder")
    return pipeline, folder / "folder", single_file.original(pipeline)


def test_a_file_in_the_original_layout_is_the_same_model_as_its_folder(model, tmp_path):
    from safetensors.torch import save_file

    pipeline, folder, weights = model
    save_file(weights, tmp_path / "model.safetensors")
    text = {"prompt": "a cat", "guidance": 2.0}
    one = load(tmp_path / "model.safetensors", config=folder, **text)
    two = load(pipeline, **text)
    x, images = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 64, 64)
    assert relative(one.denoiser(x, 500), two.denoiser(x, 500)) < 1e-5
    assert relative(one.encode(images), two.encode(images)) < 1e-5
    assert relative(one.decode(x), two.decode(x)) < 1e-5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.diffusion_model.middle_block.0.in_layers.2.weight", "it lacks weights"),
        ("first_stage_model.decoder.conv_out.weight", "it lacks weights"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.weight",
            "lacks 1 weights of the text_encoder, the first of them",
        ),
    ],
)
def test_a_file_that_lacks_a_weight_is_refused(model, tmp_path, name, message):
    from safetensors.torch import save_file

    _, folder, weights = model
    rest = {key: value for key, value in weights.items() if key != name}
    save_file(rest, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "model.safetensors", config=folder)
