import os

import numpy as np
import pytest
from PIL import Image

from jacobian_lab import InputError
from studies.frame.image_files import open_upright, size_of
from studies.frame.options import OnModel
from studies.frame.pictures import read_image
from studies.sampling.inpaint import Inpaint
from studies.sampling.style_transfer import StyleTransfer
from studies.sampling.superres import Superres

from odd_files import (
    COLOUR,
    LEFT,
    RED,
    ROTATIONS,
    camera,
    gif,
    huge,
    png,
    save,
    unit,
)


def test_a_camera_turned_sideways_has_its_size_turned(tmp_path):
    for orientation in ROTATIONS:
        camera(tmp_path / "photo.jpg", orientation, RED[:20], quality=100)
        assert size_of(tmp_path / "photo.jpg", "--image") == (32, 20)
        found = read_image(tmp_path / "photo.jpg", (3, 20, 20)).pixels[0].permute(1, 2, 0)
        assert np.abs(found.numpy() - unit(RED[:20, 6:26])).mean() < 0.05


def test_colours_of_twelve_bits_in_sixteen_are_refused(tmp_path):
    for factor, ok in ((16, False), (257, True)):
        rows = b"".join(
            b"\0" + (RED[k].astype(np.uint16) * factor).astype(">u2").tobytes() for k in range(32)
        )
        png(tmp_path / "deep.png", (32, 32, 16, 2), rows)
        if ok:
            found = read_image(tmp_path / "deep.png", COLOUR).pixels[0].permute(1, 2, 0)
            np.testing.assert_allclose(found, unit(RED), atol=1e-6)
        else:
            with pytest.raises(
                InputError, match="colours of 16 bits that reach a quarter of white at most"
            ):
                read_image(tmp_path / "deep.png", COLOUR)


def test_large_jpegs_are_reduced_while_they_are_decoded(tmp_path):
    wide = np.broadcast_to(np.linspace(0, 255, 2048).astype(np.uint8), (1024, 2048))
    save(tmp_path / "large.jpg", wide, quality=95)
    whole = open_upright(tmp_path / "large.jpg", "--image")
    reduced = open_upright(tmp_path / "large.jpg", "--image", least=128)
    assert (whole.size, reduced.size) == ((2048, 1024), (256, 128))
    found = read_image(tmp_path / "large.jpg", (1, 64, 64)).pixels[0, 0]
    np.testing.assert_allclose(found[30], unit(wide[0, 512 + 8 : 1536 : 16]), atol=0.02)


NO_IMAGES = {
    "text": (lambda p: p.write_text("no image"), "is not an image that can be read"),
    "no file": (lambda p: None, "there is no file"),
    "a folder": (
        lambda p: p.mkdir(),
        "(cannot be read \\(it is no file|: the folder holds no image files)",
    ),
    "a pipe": (os.mkfifo, "cannot be read \\(it is no file"),
    "a device": (lambda p: p.symlink_to("/dev/zero"), "cannot be read \\(it is no file"),
    "200 megapixels": (lambda p: huge(p, 20_000, 10_000), "has 200,000,000 pixels"),
    "two frames": (
        lambda p: gif(p, [Image.fromarray(a) for a in (0 * LEFT, LEFT)], format="GIF"),
        "has 2 frames",
    ),
}


@pytest.mark.parametrize("name", NO_IMAGES)
@pytest.mark.parametrize("model", ["mnist", "mnist-latent"])
def test_what_is_no_image_is_refused_before_a_model_is_opened(name, model, tmp_path):
    """A pipe has no end to wait for, and a hub id may take minutes to open."""
    write, message = NO_IMAGES[name]
    write(tmp_path / "odd.png")
    for door in (
        lambda path: OnModel(model=model, images=(path,)),
        lambda path: Inpaint(model=model, images=(path,)),
        lambda path: StyleTransfer(model=model, images=(path,)),
        lambda path: Superres(model=model, images=(path,)),
    ):
        with pytest.raises(InputError, match=f"odd.png ?{message}|{message} .*odd.png"):
            door(tmp_path / "odd.png")
    if name != "no file":  # of a mask, that is a word which is none of those known
        with pytest.raises(InputError, match=f"odd.png ?{message}"):
            Inpaint(model=model, mask=str(tmp_path / "odd.png"))
