"""A run's data as an `xarray.Dataset`: named dimensions, coordinates, and for each variable its
unit and a line that says what it is.

    RUN/data.nc       the dataset, netCDF-4, by h5netcdf
    RUN/SHA256SUMS    its checksum, as `sha256sum -c` reads it

netCDF rather than zarr: a run is one small file that is written whole and read whole, MATLAB, Julia
and R read it as well, and complex numbers, half precision, truth values and text come back as they
were. Zarr pays where many processes write parts of one large array.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jacobian_lab import InputError
from jacobian_lab._checksums import SUMS, read_sums
from jacobian_lab._files import write_whole

if TYPE_CHECKING:
    import xarray

Arrays: TypeAlias = dict[str, NDArray[Any]]
DATA, OLD = "data.nc", "data.npz"
"""The file of a run's data, and what it was before."""
SMALL = 256
"""How many numbers are not worth compressing."""


@dataclass(frozen=True)
class Variable:
    """What a variable of a run is. One that is called like its only dimension is that dimension's
    coordinate, by which `dataset.sel(time=300)` finds.
    """

    dims: str
    """Names of its dimensions, with spaces between them; "" for a single value."""
    description: str
    units: str = "1"
    """"1" of what has none, such as pixels in [-1, 1]; text has none either."""
    coordinate: bool = False
    """Whether it only says where along its dimensions something is, as a name does."""


Variables: TypeAlias = Mapping[str, Variable]
T = "index in the training table, 0 to T - 1; of a continuous schedule its time, of a flow sigma"
TIME = Variable("time", f"noise level t: {T}")
"""Of studies over noise levels."""
IMAGE, LATENT = "channel row column", "c h w"
"""Dimensions of an image, and of what has the shape of a model's samples beside images of another.
Where samples are no images they are `AXES`, as many as there are.
"""
AXES = tuple(f"axis_{k}" for k in range(8))
SAMPLES = {
    "sample": Variable("sample", "digit or image, and the seed of its noise"),
    "digit": Variable("sample", "number of the digit or image", coordinate=True),
    "seed": Variable("sample", "seed of its noise", coordinate=True),
}
"""Of studies over images and noises; see `studies.frame.survey.Points.coordinates`."""
ALONG = {
    "time": Variable("time", f"sampling times, from noise to image: {T}"),
    "residual": Variable("drawn time step", "what the constraint misses, after each Newton step"),
    "passes": Variable("drawn pass", "forward passes, J v and J^T u that a sample cost"),
}
"""Of studies of constrained sampling."""
SUBJECT = {
    "subject": Variable("", "what the run is of, in words: model, prompt, digits or images, seeds")
}


def dataset(arrays: Arrays, variables: Variables, attributes: Mapping[str, str]) -> xarray.Dataset:
    """Return arrays as a dataset; what `variables` does not tell of is kept, unlabelled, with a
    warning, so that nothing that was computed is lost.
    """
    import xarray

    found: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    coordinates = []
    for name, array in arrays.items():
        variable = variables.get(name)
        dims = [] if variable is None else dimensions(variable, np.ndim(array))
        shape = dict(zip(dims, np.shape(array), strict=False))
        unlike = any(sizes.get(dim, size) != size for dim, size in shape.items())
        if variable is None or len(dims) != np.ndim(array) or unlike:
            told = (
                variable and f"has dimensions {variable.dims!r}"
            )  # of other sizes, or another number
            warnings.warn(
                f"the study's variable {name!r} {told or 'is not described'}: it has shape"
                f" {np.shape(array)}",
                stacklevel=2,
            )
            found[name] = ([f"{name}_{k}" for k in range(np.ndim(array))], array, {})
            continue
        is_text = np.asarray(array).dtype.kind == "U"
        labels = {"description": variable.description} | (
            {} if is_text else {"units": variable.units}
        )
        found[name], sizes = (dims, array, labels), sizes | shape
        if variable.coordinate and dims != [name]:
            coordinates.append(name)
    return xarray.Dataset(found, attrs=dict(attributes)).set_coords(coordinates)


def dimensions(variable: Variable, count: int) -> list[str]:
    """Return the names of a variable's dimensions, of which an array has so many: those of an image
    at their end stand for a sample of any shape.
    """
    dims = variable.dims.split()
    if len(dims) != count and dims[-3:] in (IMAGE.split(), LATENT.split()):
        dims = [*dims[:-3], *AXES[: max(0, count - len(dims) + 3)]]
    return dims


def arrays_of(data: xarray.Dataset) -> Arrays:
    """Return the arrays of a dataset, name -> array."""
    return {str(name): np.asarray(variable.values) for name, variable in data.variables.items()}


def write_dataset(folder: Path, data: xarray.Dataset) -> None:
    """Write a run's data and its checksum, each file whole."""
    packed = {
        str(name): {"zlib": True, "complevel": 4}
        for name, variable in data.variables.items()
        if variable.size > SMALL and variable.dtype.kind != "U"
    }
    content = bytes(data.to_netcdf(engine="h5netcdf", encoding=packed))
    write_whole(folder / DATA, content)
    write_whole(folder / SUMS, f"{sha256(content).hexdigest()}  {DATA}\n".encode())


def read_dataset(folder: Path) -> xarray.Dataset:
    """Return a run's data, undamaged, in memory.

    Raises
    ------
    InputError
        If the folder holds no data, data of the old kind, or damaged data; with the remedy.
    """
    import xarray

    path, again = folder / DATA, f"Remove the folder {folder} and run again"
    if not path.is_file():
        if (folder / OLD).is_file():
            raise InputError(
                f"{folder} was written before runs were labelled, as {OLD}: `numpy.load` reads it."
                " Its command, in manifest.json, computes it anew beside it"
            )
        partial = folder.with_name(f"{folder.name}.partial")
        remedy = (
            f"{partial} is unfinished: its command goes on with it" if partial.is_dir() else again
        )
        raise InputError(f"{folder} has no {DATA}, the data of a finished run. {remedy}")
    try:
        content = path.read_bytes()
        if read_sums(folder / SUMS).get(DATA) != sha256(content).hexdigest():
            raise InputError(f"{path} is damaged: its checksum is not that in {SUMS}. {again}")
        return xarray.load_dataset(BytesIO(content), engine="h5netcdf")
    except InputError:
        raise
    except Exception as error:  # a file that was made to harm has a true checksum
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}). {again}"
        ) from error
