"""Runs as labelled data: what is written comes back, with dimensions, units and descriptions."""

import subprocess
import sys

import numpy as np
import pytest
import xarray

from jacobian_lab import InputError
from studies.archive.tidy import HEAD, TAIL
from studies.commands import COMMANDS, study_of
from studies.frame.dataset import (
    AXES,
    DATA,
    IMAGE,
    LATENT,
    Variable,
    arrays_of,
    dataset,
    read_dataset,
    write_dataset,
)

VARIABLES = {
    "time": Variable("time", "noise level"),
    "name": Variable("sample", "digit", coordinate=True),
    "value": Variable("time sample", "what is measured", "ms"),
}
ARRAYS = {
    "time": np.array([300, 700]),
    "name": np.array(["a", "b", "long name"]),
    "value": np.arange(6.0).reshape(2, 3),
}


@pytest.mark.parametrize(
    "array",
    [
        np.array([1 + 2j, np.nan]),
        np.array([[0.1, np.inf]], dtype=np.float16),
        np.array([True, False]),
        np.array(["", "ü", "<script>"]),
        np.array(7),
        np.array(""),
        np.zeros((2, 0)),
        np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32),
        np.array([2**63 - 1], dtype=np.int64),
    ],
    ids=lambda a: f"{a.dtype}{list(a.shape)}",
)
def test_arrays_come_back_to_the_bit(tmp_path, array):
    dims = " ".join(f"d{k}" for k in range(array.ndim))
    found = dataset({"x": array}, {"x": Variable(dims, "any", "1")}, {})
    write_dataset(tmp_path, found)
    back = arrays_of(read_dataset(tmp_path))["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_labels_are_coordinates_units_and_descriptions(tmp_path):
    write_dataset(tmp_path, dataset(ARRAYS, VARIABLES, {"study": "any"}))
    with xarray.open_dataset(tmp_path / DATA, engine="h5netcdf") as data:  # plain xarray
        assert data.attrs["study"] == "any"
        assert set(data.coords) == {"time", "name"}
        assert data["value"].sel(time=700).values.tolist() == [3, 4, 5]
        assert data["value"].attrs == {"units": "ms", "description": "what is measured"}
        assert "units" not in data["name"].attrs  # text has none
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("variables", [{}, {"value": Variable("time", "too few dimensions")}])
def test_what_is_not_described_is_kept_and_told(variables):
    with pytest.warns(UserWarning, match=r"'value' (is not described|has dimensions 'time')"):
        found = dataset({"value": ARRAYS["value"]}, variables, {})
    np.testing.assert_array_equal(found["value"].values, ARRAYS["value"])


@pytest.mark.parametrize("shape", [(3,), (3, 24), (3, 5, 6), (3, 1, 4, 4), (3, 1, 4, 4, 4)])
@pytest.mark.parametrize("image", [IMAGE, LATENT])
def test_samples_of_any_shape_have_dimensions(shape, image):
    found = dataset({"x": np.zeros(shape)}, {"x": Variable(f"k {image}", "vectors")}, {})
    own = image.split() if len(shape) == 4 else list(AXES[: len(shape) - 1])
    assert found["x"].dims == ("k", *own)


def test_sizes_that_contradict_each_other_are_told_and_nothing_is_lost():
    variables = {name: Variable("sample", "any") for name in ("a", "b")}
    with pytest.warns(UserWarning, match="'b' has dimensions 'sample'"):
        found = dataset({"a": np.zeros(2), "b": np.zeros(3)}, variables, {})
    assert found["a"].dims == ("sample",)
    assert found["b"].shape == (3,)


def test_missing_old_unfinished_and_damaged_data_are_refused_with_the_remedy(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"has no data.nc, .* Remove the folder"):
        read_dataset(run)
    (tmp_path / "run.partial").mkdir()
    with pytest.raises(InputError, match="is unfinished: its command goes on with it"):
        read_dataset(run)
    run.mkdir()
    np.savez(run / "data.npz", x=1)
    with pytest.raises(InputError, match=r"written before runs were labelled, as data\.npz"):
        read_dataset(run)
    write_dataset(run, dataset(ARRAYS, VARIABLES, {}))
    content = (run / DATA).read_bytes()
    (run / DATA).write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match=r"is damaged: .* Remove the folder"):
        read_dataset(run)
    (run / DATA).write_bytes(content)
    (run / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset(run)


def test_the_library_itself_does_not_load_xarray():
    code = "import sys, jacobian_lab; assert 'xarray' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "name",
    [n for group in COMMANDS.values() for n, command in group.items() if not command.function],
)
def test_every_study_describes_its_variables(name):
    known = {n: command for group in COMMANDS.values() for n, command in group.items()}
    variables = study_of(known[name]).variables
    assert variables
    for variable in variables.values():
        assert variable.description
        assert variable.units
        dims = variable.dims.split()
        assert len(set(dims)) == len(dims)
        assert not {*HEAD, *TAIL} & set(dims)  # columns of the tidy table
