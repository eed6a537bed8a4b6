"""The command `jacobian-lab collect`: the numbers of many runs in one tidy table, a row for each
number.

    run  study  model  seed  options  time  sample  operator ...  quantity  value  units

A row says which run it is of, where in the run's data it stands, by the coordinates of its
dimensions, and what it is, with its unit: so runs of different studies fit into one table. Images
and vectors over pixels are left out; `studies.open` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jacobian_lab import InputError, _require
from jacobian_lab._files import write_whole
from studies.archive.listing import in_words
from studies.archive.stored import Stored, finished
from studies.frame.dataset import AXES

if TYPE_CHECKING:
    import pandas
    import xarray

OF_PIXELS = {"row", "column", "pixel", "h", "w", "grid_x", *AXES}
"""Dimensions whose variables are pictures."""
HEAD = ("run", "study", "model", "seed", "options")
TAIL = ("quantity", "value", "units", "description")


@dataclass(frozen=True)
class Collect:
    """Collect the numbers of runs into one table. Example: jacobian-lab collect
    runs/eigenvalues-1a2b3c4d runs/symmetry-5e6f7a8b --to table.csv.
    """

    POSITIONAL = ("runs",)

    runs: tuple[Path, ...]
    """Folders of finished runs."""
    to: Path = Path("table.csv")
    """The file that is written: .csv, or .parquet with the package pyarrow."""
    quantities: tuple[str, ...] = ()
    """Only these variables, such as largest error; by default all that are numbers and no
    pictures.
    """

    def __post_init__(self) -> None:
        _require.options(self)
        if not self.runs:
            raise InputError("name one or more folders of runs; jacobian-lab list shows them")
        if self.to.suffix not in (".csv", ".parquet"):
            raise InputError(f"--to must end in .csv or .parquet: got {self.to}")


def collect_runs(config: Collect) -> None:
    """Write the table; print how many rows it has."""
    table = tidy(finished(config.runs), config.quantities)
    if config.to.suffix == ".csv":
        write_whole(config.to, table.to_csv(index=False).encode())
    else:
        _require.library("pyarrow", "parquet", "files .parquet")
        content = BytesIO()
        table.to_parquet(content, index=False)
        write_whole(config.to, content.getvalue())
    print(f"{config.to}: {len(table)} rows of {len(config.runs)} runs")


def tidy(runs: list[Stored], quantities: tuple[str, ...] = ()) -> pandas.DataFrame:
    """Return a row for each number of runs.

    Parameters
    ----------
    runs : list of Stored
    quantities : tuple of str
        Only these variables.

    Raises
    ------
    InputError
        If none of the runs has one of the quantities.
    """
    import pandas

    parts, known = [], set[str]()
    for run in runs:
        data, options = run.data(), run.options()
        known |= set(numbers_of(data))
        head = {
            "run": run.folder.name,
            "study": run.study_name,
            "model": options.get("model", ""),
            "seed": options.get("seed", ""),
            "options": in_words(run.chosen()),
        }
        parts += [
            rows_of(data[name], head)
            for name in numbers_of(data)
            if not quantities or name in quantities
        ]
    if missing := set(quantities) - known:
        raise InputError(
            f"no run has {', '.join(sorted(missing))}: expected of {', '.join(sorted(known))}"
        )
    table = pandas.concat(parts, ignore_index=True)
    places = [name for name in table.columns if name not in (*HEAD, *TAIL)]
    return table[[*HEAD, *places, *TAIL]]


def numbers_of(data: xarray.Dataset) -> list[str]:
    """Return the names of the variables that are numbers, and no pictures."""
    return [
        str(name)
        for name, variable in data.data_vars.items()
        if variable.dtype.kind in "biuf" and not OF_PIXELS & set(variable.dims)
    ]


def rows_of(variable: xarray.DataArray, head: dict[str, Any]) -> pandas.DataFrame:
    """Return a row for each number of a variable."""
    import pandas

    name = str(variable.name)
    taken = {dim: f"{dim}_index" for dim in variable.dims if dim in (*HEAD, *TAIL)}
    values = variable.rename(taken).astype(float).rename("value")
    if variable.dims:
        frame = values.to_dataframe().reset_index()
    else:
        frame = pandas.DataFrame({"value": [float(values)]})
    for key, value in head.items():
        if key not in frame:  # where samples have seeds of their own, these are told
            frame[key] = value
    frame["quantity"], frame["units"] = name, variable.attrs.get("units", "")
    frame["description"] = variable.attrs.get("description", "")
    return frame
