"""Odd image and mask files: read rightly, or refused in a message that says why, through every door
in the same way.
"""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from jacobian_lab import InputError
from studies.frame import (
    pictures,
)
from studies.frame.models import OnModel, open_model
from studies.frame.pictures import count_known, read_image, read_mask, size_of
from studies.sampling.inpaint import Inpaint
from studies.sampling.style_transfer import StyleTransfer
from studies.sampling.superres import Superres

from conftest import call

DIGIT, COLOUR = (1, 32, 32), (3, 32, 32)
GRAY = np.add.outer(4 * np.arange(32), 2 * np.arange(32)).astype(np.uint8)  # 0 to 186, no symmetry
RED = np.stack([GRAY, GRAY // 2, 255 - GRAY], -1)
LEFT = np.zeros((32, 32), np.uint8)
LEFT[:, :10] = 255
ROTATIONS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""From the upright picture to what a camera stores with an orientation of EXIF's."""


def unit(array):
    """Bytes as a model sees them."""
    return np.asarray(array, dtype=np.float64) / 127.5 - 1


def luminance(rgb):
    return np.asarray(Image.fromarray(np.asarray(rgb, np.uint8)).convert("L"))


def save(path, array, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)


def with_alpha(array, alpha):
    return np.concatenate([array if array.ndim == 3 else array[..., None], alpha[..., None]], -1)


def palette(transparent=None):
    image = Image.fromarray((GRAY // 64).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 255, 255, 255])
    return image, {} if transparent is None else {"transparency": transparent}


def colours_of_palette():
    return np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [255, 255, 255]], np.uint8)[GRAY // 64]


def gif(path, frames, **options):
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


def png(path, header, rows=b"\0"):
    """A PNG by hand: width, height, bits and kind of colour; without rows it promises pixels and
    holds none.
    """
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )


def huge(path, width, height):
    png(path, (width, height, 8, 0))


def truncated(path, kind):
    buffer = io.BytesIO()
    save(
        buffer, np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8), format=kind
    )
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def camera(path, orientation, pixels=GRAY, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path, np.ascontiguousarray(ROTATIONS[orientation](pixels)), exif=exif, **options)


def deep(array, dtype=np.uint16):
    return np.asarray(array, dtype)


def big_endian():
    return Image.frombytes("I;16B", (32, 32), (deep(GRAY) * 257).astype(">u2").tobytes())


LAB = Image.merge("LAB", [Image.fromarray(a) for a in (GRAY, 0 * GRAY + 128, 0 * GRAY + 128)])
HALF = np.where(np.arange(32) < 16, 255, 0) * np.ones((32, 1))
ALPHA = HALF.astype(np.uint8)
INK = np.where(GRAY > 90, 255, 0).astype(np.uint8)

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
    "a folder": ("png", lambda p: p.mkdir(), "cannot be read", None),
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
        "has 20x32 pixels: --image must be an image of 32x32",
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
    doors = [lambda: read_image(path, DIGIT).pixels, *doors_of_digits(path, opened)]
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
        lambda config=config: config(image=path).inputs(model).images
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
    with pytest.raises(InputError, match="32x32 pixels: --image must be an image of 16x16 pixels"):
        Superres(image=path, factor=2)


def test_superres_reads_a_small_digit_upright(tmp_path):
    camera(tmp_path / "small.png", 6, GRAY[:16, :16])
    np.testing.assert_allclose(
        Superres(image=tmp_path / "small.png", factor=2).read(DIGIT).pixels[0, 0],
        unit(GRAY[:16, :16]),
        atol=1e-6,
    )


def test_a_small_digit_is_padded_and_says_nothing(tmp_path):
    save(tmp_path / "digit.png", GRAY[2:-2, 2:-2])
    picture = read_image(tmp_path / "digit.png", DIGIT)
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
    assert said in read_image(path, DIGIT).said
    assert bool(read_image(path, DIGIT).said) == bool(said)
    OnModel(image=path).inputs(opened)
    assert said in capsys.readouterr().err


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
    whole = pictures._open(tmp_path / "large.jpg", "--image")
    reduced = pictures._open(tmp_path / "large.jpg", "--image", least=128)
    assert (whole.size, reduced.size) == ((2048, 1024), (256, 128))
    found = read_image(tmp_path / "large.jpg", (1, 64, 64)).pixels[0, 0]
    np.testing.assert_allclose(found[30], unit(wide[0, 512 + 8 : 1536 : 16]), atol=0.02)


KNOWN = LEFT > 0
SQUARE = np.zeros((32, 32), bool)
SQUARE[8:20, 8:20] = True
SOFT = (np.clip(np.arange(32) * 64 - 900, 0, 255) * np.ones((32, 1))).astype(np.uint8)
PHOTO_ERASED = with_alpha(RED, np.where(SQUARE, 0, 255).astype(np.uint8))

# name -> (ending, how it is written, what is known; or what it is refused with)
MASKS = {
    "white and black": ("png", lambda p: save(p, LEFT), KNOWN),
    "jpeg": ("jpg", lambda p: save(p, ALPHA), HALF > 0),
    "1 bit": ("png", lambda p: save(p, Image.fromarray(KNOWN)), KNOWN),
    "0 and 1": ("png", lambda p: save(p, LEFT // 255), KNOWN),
    "0 and 1 in 16 bits": ("png", lambda p: save(p, deep(KNOWN)), KNOWN),
    "0 and 1, float": ("tiff", lambda p: save(p, KNOWN.astype(np.float32)), KNOWN),
    "-1 and 1, float": ("tiff", lambda p: save(p, 2 * KNOWN.astype(np.float32) - 1), KNOWN),
    "0 and 255 in 16 bits": ("png", lambda p: save(p, deep(LEFT)), KNOWN),
    "0 and 65535": ("png", lambda p: save(p, deep(LEFT) * 257), KNOWN),
    "palette, black and white": ("gif", lambda p: save(p, LEFT), KNOWN),
    "alpha, erased from a photo": ("png", lambda p: save(p, PHOTO_ERASED), ~SQUARE),
    "alpha, white paint": (
        "png",
        lambda p: save(p, with_alpha(np.full_like(LEFT, 255), LEFT)),
        KNOWN,
    ),
    "alpha, coloured paint": (
        "png",
        lambda p: save(p, with_alpha(np.full((32, 32, 3), (255, 0, 0), np.uint8), LEFT)),
        KNOWN,
    ),
    "opaque alpha": ("png", lambda p: save(p, with_alpha(LEFT, np.full_like(LEFT, 255))), KNOWN),
    "palette, transparent": (
        "png",
        lambda p: save(p, palette()[0], transparency=0),
        GRAY // 64 != 0,
    ),
    "soft edge": ("png", lambda p: save(p, SOFT), SOFT > 127),
    "exif 6": ("png", lambda p: camera(p, 6, LEFT), KNOWN),
    "alpha, black paint": (
        "png",
        lambda p: save(p, with_alpha(np.zeros_like(LEFT), LEFT)),
        "known by its alpha and unknown",
    ),
    "alpha, black and white paint": (
        "png",
        lambda p: save(p, with_alpha(LEFT, ALPHA)),
        "known by its alpha and unknown by",
    ),
    "transparent": ("png", lambda p: save(p, with_alpha(LEFT, 0 * LEFT)), "transparent everywhere"),
    "labels": (
        "png",
        lambda p: save(p, GRAY // 40),
        "holds 0, 1, 2, 3, 4: expected black and white, 0 and 255",
    ),
    "labels and a void": (
        "png",
        lambda p: save(p, np.where(KNOWN, 255, GRAY // 140).astype(np.uint8)),
        "holds 0, 1, 255",
    ),
    "labels in 16 bits": (
        "png",
        lambda p: save(p, deep(GRAY // 40)),
        "holds 0, 1, 2, 3, 4: expected",
    ),
    "labels, float": (
        "tiff",
        lambda p: save(p, (GRAY // 40).astype(np.float32)),
        "holds 0, 1, 2, 3, 4: expected",
    ),
    "many labels": (
        "png",
        lambda p: save(p, GRAY // 6),
        "holds 0, 1, 2, 3, 4, 5, 6, 7 and 24 more values",
    ),
    "labels in colours": ("png", lambda p: save(p, palette()[0]), "has colours, most of them #"),
    "gray": ("png", lambda p: save(p, LEFT // 3), "holds 0, 85: expected"),
    "a photo": ("png", lambda p: save(p, GRAY), "more values: expected black and white"),
    "a photo in colours": ("png", lambda p: save(p, RED), "has colours"),
    "black": (
        "png",
        lambda p: save(p, 0 * LEFT),
        "is black everywhere, so that (no|every) pixel is known",
    ),
    "white": (
        "png",
        lambda p: save(p, 0 * LEFT + 255),
        "is white everywhere, so that (no|every) pixel is known",
    ),
    "another aspect": (
        "png",
        lambda p: save(p, LEFT[:, :16]),
        "has 16x32 pixels: --mask must be an image of 32x32 or 28x28",
    ),
    "two frames": (
        "gif",
        lambda p: gif(p, [Image.fromarray(a) for a in (0 * LEFT, LEFT)]),
        "has 2 frames",
    ),
    "200 megapixels": ("png", lambda p: huge(p, 20_000, 10_000), "has 200,000,000 pixels"),
    "truncated": ("png", lambda p: truncated(p, "PNG"), "cannot be read"),
    "text": ("png", lambda p: p.write_text("no image"), "is not an image that can be read"),
}


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_an_odd_mask_is_read_rightly_or_refused(name, invert, tmp_path):
    ending, write, wanted = MASKS[name]
    path = tmp_path / f"odd.{ending}"
    write(path)
    doors = [
        lambda: read_mask(path, DIGIT, invert).known,
        lambda: Inpaint(mask=str(path), invert_mask=invert).known([3])[0][0],
        *([lambda: read_mask(path, COLOUR, invert).known] if name != "another aspect" else []),
    ]
    for door in doors:
        if isinstance(wanted, str):
            with pytest.raises(InputError, match=wanted):
                door()
        else:
            np.testing.assert_array_equal(door()[0], wanted ^ invert)


@pytest.mark.parametrize(
    ("size", "shown", "ok"),
    [
        ((64, 64), (64, 64), True),
        ((32, 32), (64, 64), True),
        ((64, 42), (96, 64), True),
        ((43, 64), (64, 96), True),
        ((300, 200), (96, 64), True),
        ((64, 32), (64, 64), False),
        ((32, 64), (64, 64), False),
        ((64, 64), (96, 64), False),
        ((96, 64), (64, 96), False),
        ((64, 60), (64, 64), False),
    ],
)
def test_a_mask_has_the_aspect_of_its_image(tmp_path, size, shown, ok):
    save(tmp_path / "photo.png", Image.new("RGB", shown))
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    save(tmp_path / "mask.png", mask)

    def read():
        return read_mask(tmp_path / "mask.png", (3, 16, 16), image=tmp_path / "photo.png").known

    if ok:
        assert read()[0, :, :8].all()
        assert not read()[0, :, 8:].any()
    else:
        with pytest.raises(
            InputError,
            match=f"{size[0]}x{size[1]} pixels and the image .* {shown[0]}x{shown[1]}, another",
        ):
            read()


def test_how_many_pixels_are_known_is_counted(tmp_path):
    assert count_known(torch.from_numpy(KNOWN)[None]) == "320 of 1,024 pixels known"
    both = torch.stack([torch.from_numpy(KNOWN), torch.from_numpy(SQUARE)])[:, None]
    assert count_known(both) == "144 to 320 of 1,024 pixels known"
    save(tmp_path / "erased.png", PHOTO_ERASED)
    assert (
        Inpaint(mask=str(tmp_path / "erased.png"), model="oracle").known([0, 1])[1]
        == "erased.png: opaque pixels are known; 880 of 1,024 pixels known"
    )
    assert Inpaint().known([0])[1] == "512 of 1,024 pixels known"


@pytest.mark.parametrize(
    ("words", "line", "known"),
    [
        ((), "mask.png: opaque pixels are known; 880 of 1,024 pixels known", ~SQUARE),
        (
            ("--invert-mask",),
            "mask.png: opaque pixels are known; 144 of 1,024 pixels known",
            SQUARE,
        ),
    ],
)
def test_inpaint_says_what_is_known_and_knows_it(
    monkeypatch, capsys, tmp_path, model, words, line, known
):
    save(tmp_path / "mask.png", PHOTO_ERASED)
    camera(tmp_path / "digit.png", 6, deep(GRAY) * 257)
    status, _, err = call(
        monkeypatch,
        capsys,
        "inpaint",
        "--model",
        model,
        "--steps",
        1,
        "--newton-steps",
        1,
        "--samples",
        1,
        "--image",
        tmp_path / "digit.png",
        "--mask",
        tmp_path / "mask.png",
        *words,
        "--out",
        tmp_path / "run",
    )
    assert status == 0, err
    assert line in err
    assert "digit.png: 0 is black and 65,535 white" in err
    with np.load(tmp_path / "run" / "data.npz") as stored:
        np.testing.assert_array_equal(~np.isnan(stored["observed"][0, 0]), known)
        np.testing.assert_allclose(stored["truth"][0, 0], unit(GRAY), atol=1e-6)


NO_IMAGES = {
    "text": (lambda p: p.write_text("no image"), "is not an image that can be read"),
    "no file": (lambda p: None, "there is no file"),
    "a folder": (lambda p: p.mkdir(), "cannot be read \\(it is no file"),
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
        lambda path: OnModel(model=model, image=path),
        lambda path: Inpaint(model=model, image=path),
        lambda path: StyleTransfer(model=model, image=path),
        lambda path: Superres(model=model, image=path),
    ):
        with pytest.raises(InputError, match=f"odd.png {message}|{message} .*odd.png"):
            door(tmp_path / "odd.png")
    if name != "no file":  # of a mask, that is a word which is none of those known
        with pytest.raises(InputError, match=f"odd.png {message}"):
            Inpaint(model=model, mask=str(tmp_path / "odd.png"))
