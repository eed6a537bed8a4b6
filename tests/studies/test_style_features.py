"""What a style is read off: the features of the named layers, and which CLIP model they are of."""

import pytest
import torch

import mnist
from jacobian_lab import InputError
from studies.sampling.style_features import CLASSIFIER, _by_place, clip_hash, load_features

from conftest import relative

pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
transformers = pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
import pipelines  # noqa: E402 - needs what was asked for above


@pytest.fixture
def clip(tmp_path):
    """A small CLIP with random weights, as transformers saves it."""
    return pipelines.clip_vision(tmp_path / "clip")


def test_features_of_clip_are_those_of_its_second_block(clip):
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = transformers.CLIPVisionModel.from_pretrained(clip)
    processor = transformers.CLIPImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, do_rescale=False
    )
    pixels = processor((images + 1) / 2, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        # before the first block, and after each
        hidden = network(pixels, output_hidden_states=True).hidden_states
    for names in ((), ("vision_model.encoder.layers.1",), ("encoder.layers.1",)):
        (found,) = load_features(str(clip), names, "cpu")(images)
        # PIL-like resizing there, with rounding of its own
        assert relative(found, hidden[2][:, 1:].mT) < 1e-2
    gray = images[:, :1]
    one, three = (
        load_features(str(clip), ("embeddings.patch_embedding",), "cpu")(x)[0]
        for x in (gray, gray.expand(-1, 3, -1, -1))
    )
    assert one.shape == (2, 16, 4, 4)
    assert torch.equal(one, three)


def test_a_folder_with_other_weights_is_no_clip(clip):
    from safetensors.torch import load_file, save_file

    weights = load_file(clip / "model.safetensors")
    save_file(dict(list(weights.items())[1:]), clip / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks weights of a CLIP vision model"):
        load_features(str(clip), (), "cpu")


def test_features_of_digits_are_those_of_two_blocks_of_the_classifier():
    images, classifier = mnist.digits("held-out")[0][:3], mnist.load_classifier()
    with torch.no_grad():
        found = load_features(CLASSIFIER, (), "cpu")(images)
        expected = classifier.body[:3](images), classifier.body[:6](images)
        (one,) = load_features(CLASSIFIER, ("body.5",), "cpu")(images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(one, expected[1])
    with pytest.raises(InputError, match=r"the network has no layer body\.99"):
        load_features(CLASSIFIER, ("body.99",), "cpu")


def test_features_lie_by_place_without_the_class_token():
    tokens = torch.arange(24.0).reshape(2, 4, 3)  # (B, tokens, channels)
    for given in (tokens, (tokens, None)):
        found = _by_place(given)
        assert found.shape == (2, 3, 3)
        assert torch.equal(found[1, 2], tokens[1, 1:, 2])
    image = torch.zeros(2, 5, 4, 4)
    assert _by_place(image) is image
    with pytest.raises(InputError, match=r"features of shape \(2, 4\): expected a vector for"):
        _by_place(tokens[..., 0])


def test_the_hash_is_of_the_weights_alone(clip):
    before = clip_hash(str(clip))
    pipelines.edit(clip / "config.json", transformers_version="0")
    assert clip_hash(str(clip)) == before
    weights = clip / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert clip_hash(str(clip)) != before
    weights.unlink()
    with pytest.raises(InputError, match=r"there are no weights in .*clip"):
        clip_hash(str(clip))


def test_another_model_is_no_clip(clip):
    pipelines.edit(clip / "config.json", model_type="clip_text_model")
    with pytest.raises(InputError, match="is a clip_text_model: expected a CLIP vision model"):
        load_features(str(clip), (), "cpu")
