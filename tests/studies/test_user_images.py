"""Images of a user: files, folders and arrays, for a model of their shape."""

import numpy as np
import pytest
import torch
from PIL import Image

from jacobian_lab import InputError
from studies.frame.user_images import expand, read_samples, samples_hash

from conftest import png

RED = np.zeros((20, 30, 3), np.uint8)
RED[..., 0] = 255


@pytest.fixture
def folder(tmp_path):
    png(tmp_path / "b.png", np.full((20, 30), 255))
    Image.fromarray(RED).save(tmp_path / "a.jpg", quality=100)
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 8, 8), np.float32))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_its_images_in_the_order_of_their_names(folder):
    files = expand([folder])
    assert [path.name for path in files] == ["a.jpg", "b.png", "c.npy"]
    assert expand([folder / "b.png", folder / "a.jpg"]) == (folder / "b.png", folder / "a.jpg")
    found = read_samples(files, (3, 8, 8), digits=False)
    assert found.samples.shape == (4, 3, 8, 8)
    assert found.names == ["a.jpg", "b.png", "c.npy 0", "c.npy 1"]
    assert found.said == ""
    torch.testing.assert_close(found.samples[0, 0], torch.ones(8, 8), atol=0.02, rtol=0)
    torch.testing.assert_close(found.samples[0, 1], -torch.ones(8, 8), atol=0.02, rtol=0)
    assert (found.samples[1] == 1).all()


def test_an_array_is_one_by_its_name_in_capitals_too(tmp_path):
    with (tmp_path / "C.NPY").open("wb") as file:
        np.save(file, np.zeros((2, 3, 8, 8), np.float32))
    files = expand([tmp_path])
    assert samples_hash(files)
    assert read_samples(files, (3, 8, 8), digits=False).names == ["C.NPY 0", "C.NPY 1"]


def test_another_content_is_another_hash(folder):
    before = samples_hash(expand([folder]))
    np.save(folder / "c.npy", np.ones((2, 3, 8, 8), np.float32))
    assert samples_hash(expand([folder])) != before


@pytest.mark.parametrize("shape", [(5,), (2, 7), (2, 3, 4, 5)])
def test_arrays_are_samples_of_any_shape(shape, tmp_path):
    values = np.random.default_rng(0).standard_normal((3, *shape))
    np.save(tmp_path / "many.npy", values)
    np.save(tmp_path / "one.npy", values[0])
    found = read_samples([tmp_path / "one.npy", tmp_path / "many.npy"], shape, digits=False)
    assert found.names == ["one.npy", "many.npy 0", "many.npy 1", "many.npy 2"]
    np.testing.assert_allclose(found.samples[1:], values, rtol=1e-6)
    png(tmp_path / "image.png", np.zeros((8, 8)))
    with pytest.raises(InputError, match=r"no images: name \.npy files with arrays of that shape"):
        read_samples([tmp_path / "image.png"], shape, digits=False)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((3, 8, 9)), r"has shape \(3, 8, 9\): expected \(3, 8, 8\) or \(N, 3, 8, 8\)"),
        (np.zeros((3, 8, 8), np.uint8), r"got uint8. Write x / 127.5 - 1"),
        (np.full((3, 8, 8), np.nan), "must hold finite floating-point numbers"),
        (np.full((3, 8, 8), 1e300), "finite .* got float64 from 1e[+]300 to 1e[+]300"),
        (np.full((3, 8, 8), 255.0), r"pixels in \[-1, 1\]: got float64 from 255 to 255"),
        (np.zeros((0, 3, 8, 8)), r"has shape \(0, 3, 8, 8\): expected at least one sample"),
        (np.array([{}], dtype=object), "cannot be read as an array"),
        (np.zeros(()), r"has shape \(\)"),
    ],
)
def test_other_arrays_are_refused(values, told, tmp_path):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match=told):
        read_samples([tmp_path / "x.npy"], (3, 8, 8), digits=False)


@pytest.mark.parametrize("count", [10**12, 10**30])
def test_an_array_that_claims_more_than_memory_holds_is_refused(count, tmp_path):
    header = {"descr": "<f8", "fortran_order": False, "shape": (count, 3, 8, 8)}
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(InputError, match=r"x\.npy cannot be read as an array"):
        read_samples([tmp_path / "x.npy"], (3, 8, 8), digits=False)


def test_an_archive_of_arrays_is_no_array(tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((3, 8, 8)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(InputError, match="is an archive of arrays: expected one array"):
        read_samples([tmp_path / "x.npy"], (3, 8, 8), digits=False)


def test_what_is_no_image_may_leave_the_range_of_pixels(tmp_path):
    values = np.linspace(-150, 150, 192, dtype=np.float32).reshape(3, 8, 8)
    np.save(tmp_path / "x.npy", values)
    np.testing.assert_array_equal(
        read_samples([tmp_path / "x.npy"], (3, 8, 8), digits=False).samples[0], values
    )


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="the folder holds no image files"):
        expand([tmp_path])
    with pytest.raises(InputError, match="there is no file"):
        samples_hash([tmp_path / "none.npy"])
    with pytest.raises(InputError, match="there is no file"):
        samples_hash([tmp_path / "none.png"])
