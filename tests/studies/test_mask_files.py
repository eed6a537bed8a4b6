"""Odd mask files: read rightly, or refused in a message that says why."""

import numpy as np
import pytest
import torch
from PIL import Image

from jacobian_lab import InputError
from studies.frame.mask_files import count_known, read_mask
from studies.sampling.inpaint import Inpaint

from conftest import call, stored
from odd_files import (
    ALPHA,
    COLOUR,
    DIGIT,
    GRAY,
    HALF,
    LEFT,
    RED,
    camera,
    deep,
    gif,
    huge,
    palette,
    save,
    truncated,
    unit,
    with_alpha,
)

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
        lambda: read_mask(path, DIGIT, invert, digits=True).known,
        lambda: Inpaint(mask=str(path), invert_mask=invert).known([3], DIGIT, True)[0][0],
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
        return read_mask(tmp_path / "mask.png", (3, 16, 16), images=[tmp_path / "photo.png"]).known

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
        Inpaint(mask=str(tmp_path / "erased.png"), model="oracle").known([0, 1], DIGIT, True)[1]
        == "erased.png: opaque pixels are known; 880 of 1,024 pixels known"
    )
    assert Inpaint().known([0], DIGIT, True)[1] == "512 of 1,024 pixels known"


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
    data = stored(tmp_path / "run")
    np.testing.assert_array_equal(~np.isnan(data["observed"][0, 0]), known)
    np.testing.assert_allclose(data["truth"][0, 0], unit(GRAY), atol=1e-6)
