"""The models that studies take by name, their identity, and the image files that stand in for
digits.
"""

import hashlib
import shutil

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import mnist
from jacobian_lab import InputError
from studies.frame import (
    models,
)
from studies.frame.figure_style import show, tile
from studies.frame.model_files import pipeline_hash
from studies.frame.models import is_latent, open_model
from studies.frame.options import OnModel, model_files
from studies.frame.pictures import read_image
from studies.jacobian.eigenvectors import move

import pipelines
from conftest import call

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The miniature's pipeline, narrow and with random weights."""
    return pipelines.miniature(tmp_path_factory.mktemp("pipelines") / "narrow")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A file of 90 x 60 pixels, red on the left and blue on the right."""
    path = tmp_path_factory.mktemp("images") / "photo.png"
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[:, :45, 0], pixels[:, 45:, 2] = 255, 255
    Image.fromarray(pixels).save(path)
    return path


def test_a_name_is_that_of_pixels_or_of_latents(tmp_path, monkeypatch, model, folder):
    monkeypatch.chdir(tmp_path)
    for name in ("denoiser", "mnist", "mine"):
        (tmp_path / name).mkdir()
    pixels = (
        "mnist",
        "mnist-flow",
        "denoiser",
        "flow",
        "oracle",
        model,
        model + ".safetensors",
        "./runs/denoiser",
        "unet",
    )
    assert not any(is_latent(name) for name in pixels)
    assert all(
        is_latent(name)
        for name in ("mnist-latent", str(folder), "mine", "somebody/stable-diffusion-v1-5")
    )
    assert model_files(OnModel()) == {"denoiser": "denoiser"}
    assert model_files(OnModel(model="mnist-flow")) == {"flow": "denoiser"}
    assert model_files(OnModel(model="oracle")) == {}
    assert model_files(OnModel(model=str(folder))) == {str(folder): "pipeline"}
    with pytest.raises(
        InputError, match=r"narrow is no denoiser of digits in pixels, which this study needs"
    ):
        models.load_model(str(folder), "cpu")


def test_pixel_models_are_their_own_space():
    opened = open_model("mnist", "cpu")
    x = torch.randn(2, 1, 32, 32)
    assert opened.encode(x) is opened.decode(x) is x
    assert (opened.space, opened.image_shape, opened.size) == ("pixels", (1, 32, 32), 1024)
    inputs = OnModel(digit=7).inputs(opened, 2)
    assert torch.equal(inputs.clean, mnist.digits("held-out")[0][7:9])
    assert (inputs.numbers, inputs.names, inputs.labels.tolist()) == (
        [7, 8],
        ["digit 7", "digit 8"],
        [7, 8],
    )


def test_other_weights_or_another_scheduler_in_the_same_folder_are_another_run(tmp_path, folder):
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    before = pipeline_hash(str(mine))
    assert before == pipeline_hash(str(folder))  # of the content, not of the place
    pipelines.edit(mine / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    edited = pipeline_hash(str(mine))
    assert edited != before
    content = bytearray((mine / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
    content[-1] ^= 1
    (mine / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    assert pipeline_hash(str(mine)) not in (before, edited)


@pytest.mark.parametrize(
    ("kind", "time"),
    [
        ("stable diffusion", "500"),
        pytest.param("stable diffusion 3", "0.5", marks=pytest.mark.slow),
        pytest.param("instaflow", "0.5", marks=pytest.mark.slow),
    ],
)
def test_natural_images_come_from_a_file(monkeypatch, capsys, tmp_path, photo, kind, time):
    if kind == "instaflow":
        pipelines.instaflow(tmp_path / "sd")
    else:
        (
            pipelines.stable_diffusion_3 if kind.endswith("3") else pipelines.stable_diffusion
        )().save_pretrained(tmp_path / "sd")
    status, _, err = call(monkeypatch, capsys, "audit", "--model", tmp_path / "sd", "--times", time)
    assert status == 2
    assert "is not of our digits, but of samples of 3x64x64: name yours with --images FILE" in err
    status, out, err = call(
        monkeypatch, capsys, "audit", "--model", tmp_path / "sd", "--times", time, "--image", photo
    )
    assert status == 0, out + err
    assert "photo.png, t = 0.5" in out or "photo.png, t = 500" in out
    assert "all checks pass" in out


def test_components_of_colours_are_decoded_and_shown(tmp_path, photo):
    pipelines.stable_diffusion().save_pretrained(tmp_path / "sd")
    config = OnModel(model=str(tmp_path / "sd"), images=(photo,))
    model = config.load()
    inputs = config.inputs(model)
    assert inputs.images[0, 0, :, 2].min() > 0.99  # red on the left
    found = move(model, inputs.clean, np.eye(1, 256), np.array([0.5]))
    assert found["moved"].shape == (1, 5, 3, 64, 64)
    with torch.no_grad():
        np.testing.assert_allclose(found["moved"][0, 2], model.decode(inputs.clean)[0], atol=1e-5)
    assert np.isfinite(found["components"]).all()
    axes = Figure().subplots()
    shown = show(axes, inputs.images[0].numpy())
    np.testing.assert_allclose(shown.get_array()[:, 0, 0], 1, atol=1e-6)
    # signed: no colours
    assert show(axes, found["components"][0], limit=1.0).get_array().shape == (64, 64)


def test_an_image_is_cut_in_its_middle_scaled_and_turned_upright(photo, tmp_path):
    image = read_image(photo, (3, 30, 30)).pixels
    assert image.shape == (1, 3, 30, 30)
    assert torch.equal(image[0, 0, :, 0], torch.ones(30))
    assert torch.equal(image[0, 2, :, -1], torch.ones(30))
    assert torch.equal(image[0, 1], -torch.ones(30, 30))
    gray = read_image(photo, (1, 30, 30)).pixels
    assert gray[0, 0, 0, 0] > gray[0, 0, 0, -1]  # red is brighter than blue
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held sideways: the left of the file is the top of the picture
    with Image.open(photo) as file:
        file.save(turned, exif=exif, quality=100)
    upright = read_image(turned, (3, 30, 30)).pixels
    assert upright[0, 0, 2].mean() > 0.9
    assert upright[0, 2, -2].mean() > 0.9
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(
        InputError,
        match=r"note.png is not an image that can be read: --images must be an image file",
    ):
        read_image(tmp_path / "note.png", (3, 30, 30))


def test_an_image_file_takes_the_place_of_digits(photo, tmp_path):
    with pytest.raises(
        InputError, match="90x60 pixels: --images must be an image of 32x32 or 28x28 pixels"
    ):
        OnModel(images=(photo,))
    drawn = tmp_path / "drawn.png"
    with Image.open(photo) as file:
        file.resize((32, 32)).save(drawn)
    config = OnModel(images=(drawn,), digit=3)
    inputs = config.inputs(open_model("mnist", "cpu", torch.float64), 4)
    assert (inputs.numbers, inputs.names, inputs.labels) == ([3], ["drawn.png"], None)
    assert inputs.clean.shape == (1, 1, 32, 32)
    assert inputs.clean.dtype == torch.float64
    assert config.hashes["images"] == hashlib.sha256(drawn.read_bytes()).hexdigest()


def test_tiles_lie_side_by_side():
    channels = np.arange(4 * 2 * 3).reshape(4, 2, 3)
    tiles = tile(channels)
    assert tiles.shape == (4, 6)
    np.testing.assert_array_equal(
        tiles, np.block([[channels[0], channels[1]], [channels[2], channels[3]]])
    )
    np.testing.assert_array_equal(tile(channels[:1]), channels[0])
