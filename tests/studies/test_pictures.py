"""Odd image files: read rightly, or refused in a message that says why, through every door in the
same way.
"""

import numpy as np
import pytest
from PIL import Image

from jacobian_lab import InputError
from studies.frame.models import open_model
from studies.frame.options import OnModel
from studies.frame.pictures import read_image
from studies.sampling.inpaint import Inpaint
from studies.sampling.style_transfer import StyleTransfer
from studies.sampling.superres import Superres

from conftest import call
from odd_files import (
    ALPHA,
    DIGIT,
    GRAY,
    HALF,
    INK,
    LAB,
    RED,
    ROTATIONS,
    big_endian,
    camera,
    colours_of_palette,
    deep,
    gif,
    huge,
    luminance,
    palette,
    save,
    truncated,
    unit,
    with_alpha,
)

# name -> (ending, how it is written, gray as a digit's model sees it, the colours; or what it is
# refused with)
FILES = {
    "gray": ("png", lambda p: save(p, GRAY), unit(GRAY), None),
    "colours": ("png", lambda p: save(p, RED), unit(luminance(RED)), unit(RED)),
    "1 bit": ("png", lambda p: save(p, Image.fromarray(INK > 0)), unit(INK), None),
    "16 bits": ("png", lambda p: save(p, deep(GRAY) * 257), unit(GRAY), None),
    "12 bits in 16": (
        "png",
        lambda p: save(p, deep(GRAY) * 16),
        unit(deep(GRAY) * 16 / 4095 * 255),
        None,
    ),
    "8 bits in 16": ("png", lambda p: save(p, deep(GRAY)), unit(GRAY), None),
    "16 bits, tiff": ("tiff", lambda p: save(p, deep(GRAY) * 257), unit(GRAY), None),
    "16 bits, big-endian": ("tiff", lambda p: save(p, big_endian()), unit(GRAY), None),
    "32 bits": ("tiff", lambda p: save(p, deep(GRAY, np.int32) * 257), unit(GRAY), None),
    "32 bits, signed": (
        "tiff",
        lambda p: save(p, deep(GRAY, np.int32) * 10 - 900),
        unit(GRAY / 186 * 255),
        None,
    ),
    "float, 0 to 1": ("tiff", lambda p: save(p, (GRAY / 255).astype(np.float32)), unit(GRAY), None),
    "float, -1 to 1": ("tiff", lambda p: save(p, unit(GRAY).astype(np.float32)), unit(GRAY), None),
    "float, bytes": ("tiff", lambda p: save(p, GRAY.astype(np.float32)), unit(GRAY), None),
    "float, any": (
        "tiff",
        lambda p: save(p, (GRAY * 0.37 - 5).astype(np.float32)),
        unit(GRAY / 186 * 255),
        None,
    ),
    "float, NaN": (
        "tiff",
        lambda p: save(p, np.full((32, 32), np.nan, np.float32)),
        "1,024 of 1,024 values that",
        None,
    ),
    "alpha": (
        "png",
        lambda p: save(p, with_alpha(RED, ALPHA)),
        unit(np.where(HALF > 0, luminance(RED), 0)),
        unit(np.where(HALF[..., None] > 0, RED, 255)),
    ),
    "gray, alpha": (
        "png",
        lambda p: save(p, with_alpha(GRAY, ALPHA)),
        unit(np.where(HALF > 0, GRAY, 0)),
        unit(np.where(HALF > 0, GRAY, 255)),
    ),
    "a transparent digit": (
        "png",
        lambda p: save(p, with_alpha(0 * INK + 255, INK)),
        unit(INK),
        "is white everywhere",
    ),
    "a transparent digit in black": (
        "png",
        lambda p: save(p, with_alpha(np.zeros_like(INK), INK)),
        "is black everywhere",
        unit(255 - INK),
    ),
    "opaque alpha": (
        "png",
        lambda p: save(p, with_alpha(RED, np.full_like(ALPHA, 255))),
        unit(luminance(RED)),
        unit(RED),
    ),
    "palette": (
        "png",
        lambda p: save(p, palette()[0]),
        unit(luminance(colours_of_palette())),
        unit(colours_of_palette()),
    ),
    "palette, transparent": (
        "png",
        lambda p: save(p, palette()[0], transparency=3),
        unit(np.where(GRAY // 64 == 3, 0, luminance(colours_of_palette()))),
        unit(colours_of_palette()),
    ),
    "gray, a transparent value": (
        "png",
        lambda p: save(p, GRAY, transparency=0),
        unit(GRAY),
        unit(np.where(GRAY == 0, 255, GRAY)),
    ),
    "16 bits, a transparent value": (
        "png",
        lambda p: save(p, deep(GRAY) * 257, transparency=0),
        unit(GRAY),
        unit(np.where(GRAY == 0, 255, GRAY)),
    ),
    "cmyk": (
        "tiff",
        lambda p: save(p, Image.fromarray(RED).convert("CMYK")),
        unit(luminance(RED)),
        unit(RED),
    ),
    "gif": ("gif", lambda p: save(p, GRAY), unit(GRAY), None),
    "gif, black first frame": (
        "gif",
        lambda p: gif(p, [Image.fromarray(a) for a in (0 * GRAY, GRAY)]),
        "has 2 frames",
        None,
    ),
    "tiff, pages": (
        "tiff",
        lambda p: gif(p, [Image.fromarray(a) for a in (GRAY, RED)]),
        "has 2 frames",
        None,
    ),
    "webp, moving": (
        "webp",
        lambda p: gif(p, [Image.fromarray(a) for a in (RED, RED[::-1])]),
        "has 2 frames",
        None,
    ),
    "mpo": (
        "jpg",
        lambda p: gif(p, [Image.fromarray(a) for a in (0 * GRAY + 99, GRAY)], format="MPO"),
        unit(0 * GRAY + 99),
        None,
    ),
    "bmp": ("bmp", lambda p: save(p, RED), unit(luminance(RED)), unit(RED)),
    "200 megapixels": (
        "png",
        lambda p: huge(p, 20_000, 10_000),
        "has 200,000,000 pixels, more than the 100,000,000",
        None,
    ),
    "150 megapixels": (
        "png",
        lambda p: huge(p, 15_000, 10_000),
        "has 150,000,000 pixels, more than the 100,000,000",
        None,
    ),
    "truncated png": ("png", lambda p: truncated(p, "PNG"), "cannot be read", None),
    "truncated jpeg": ("jpg", lambda p: truncated(p, "JPEG"), "cannot be read", None),
    "truncated tiff": ("tiff", lambda p: truncated(p, "TIFF"), "can", None),
    "empty": ("png", lambda p: p.touch(), "is not an image that can be read", None),
    "text": ("png", lambda p: p.write_text("no image"), "is not an image that can be read", None),
    "a folder": (
        "png",
        lambda p: p.mkdir(),
        "(cannot be read|the folder holds no image files)",
        None,
    ),
    "no file": ("png", lambda p: None, "there is no file", None),
    "0 and 1": (
        "png",
        lambda p: save(p, INK // 255),
        "holds 0 and 1 of 0 to 255, which is black: multiply it by 255",
        None,
    ),
    "0 and 1 in 16 bits": (
        "png",
        lambda p: save(p, deep(INK // 255)),
        "holds whole numbers 0 and 1 only",
        None,
    ),
    "lab": (
        "tiff",
        lambda p: save(p, LAB),
        unit(luminance(LAB.convert("RGB"))),
        unit(LAB.convert("RGB")),
    ),
    **{f"exif {k}": ("png", lambda p, k=k: camera(p, k), unit(GRAY), None) for k in ROTATIONS},
    "another size": (
        "png",
        lambda p: save(p, RED[:, :20]),
        "has 20x32 pixels: --images must be an image of 32x32",
        "any",
    ),
}


def written(name, tmp_path):
    ending, write, gray, colours = FILES[name]
    path = tmp_path / f"odd.{ending}"
    write(path)
    return path, gray, gray if colours is None else colours


@pytest.mark.parametrize("name", FILES)
def test_an_odd_image_is_read_rightly_or_refused(name, tmp_path, opened):
    path, gray, colours = written(name, tmp_path)
    doors = [lambda: read_image(path, DIGIT, digits=True).pixels, *doors_of_digits(path, opened)]
    for door in doors:
        if isinstance(gray, str):
            with pytest.raises(InputError, match=gray):
                door()
        else:
            np.testing.assert_allclose(
                door()[0, 0], gray, atol=1.1 / 127.5 if name == "mpo" else 1e-6
            )
    shape = (3, 32, 32)
    if isinstance(colours, np.ndarray):
        wanted = np.broadcast_to(colours if colours.ndim == 3 else colours[..., None], (32, 32, 3))
        np.testing.assert_allclose(
            read_image(path, shape).pixels[0].permute(1, 2, 0),
            wanted,
            atol=1.1 / 127.5 if name in ("mpo", "cmyk") else 1e-6,
        )
    elif colours != "any":
        with pytest.raises(InputError, match=colours):
            read_image(path, shape)


@pytest.fixture(scope="module")
def opened():
    """A model of digits."""
    return open_model("mnist", "cpu")


def doors_of_digits(path, model):
    """The image as the studies of J and those of constrained sampling look at it."""
    return [
        lambda config=config: config(images=(path,)).inputs(model).images
        for config in (OnModel, Inpaint, StyleTransfer)
    ]


@pytest.mark.parametrize("name", ["200 megapixels", "truncated jpeg", "gif, black first frame"])
@pytest.mark.parametrize(
    "command",
    [
        "audit",
        "eigenvalues",
        "eigenvectors",
        "spectrum",
        "symmetry",
        "convergence",
        "inpaint",
        "superres",
        "style",
    ],
)
def test_every_command_refuses_a_file_in_the_same_words(
    monkeypatch, capsys, tmp_path, command, name
):
    path, message, _ = written(name, tmp_path)
    status, _, err = call(monkeypatch, capsys, command, "--image", path, "--out", tmp_path / "run")
    assert status == 2
    assert f"{path} {message}" in " ".join(err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name", ["gray", "alpha", "16 bits", "exif 6", "palette", "float, -1 to 1"]
)
def test_superres_reads_its_small_image_as_the_others_do(name, tmp_path):
    path, gray, _ = written(name, tmp_path)
    np.testing.assert_allclose(read_image(path, DIGIT, sides=(32,)).pixels[0, 0], gray, atol=1e-6)
    with pytest.raises(InputError, match="32x32 pixels: --images must be an image of 16x16 pixels"):
        Superres(images=(path,), factor=2)


def test_superres_reads_a_small_digit_upright(tmp_path):
    camera(tmp_path / "small.png", 6, GRAY[:16, :16])
    np.testing.assert_allclose(
        Superres(images=(tmp_path / "small.png",), factor=2).small(DIGIT, True)[0, 0],
        unit(GRAY[:16, :16]),
        atol=1e-6,
    )


def test_a_small_digit_is_padded_and_says_nothing(tmp_path):
    save(tmp_path / "digit.png", GRAY[2:-2, 2:-2])
    picture = read_image(tmp_path / "digit.png", DIGIT, digits=True)
    np.testing.assert_allclose(picture.pixels[0, 0, 2:-2, 2:-2], unit(GRAY[2:-2, 2:-2]), atol=1e-6)
    assert (picture.pixels.sum() - picture.pixels[..., 2:-2, 2:-2].sum()) == -240
    assert picture.said == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("12 bits in 16", "odd.png: 0 is black and 4,095 white"),
        ("float, -1 to 1", "odd.tiff: -1 is black and 1 white"),
        ("alpha", "odd.png: transparency over black"),
        ("16 bits, a transparent value", "0 is black and 65,535 white, transp"),
        ("colours", ""),
        ("exif 6", ""),
    ],
)
def test_what_a_file_needed_is_said(name, said, tmp_path, capsys, opened):
    path, _, _ = written(name, tmp_path)
    assert said in read_image(path, DIGIT, digits=True).said
    assert bool(read_image(path, DIGIT, digits=True).said) == bool(said)
    OnModel(images=(path,)).inputs(opened)
    assert said in capsys.readouterr().err
