"""The pieces of a computation, kept on disk: the one door through which studies compute.

A piece is computed here, or by an `Engine`, such as a cluster; either way the command writes it,
whole, as soon as it is finished, so that an interrupted run does not compute it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, NamedTuple, Protocol, TypeAlias

from tqdm import tqdm

from jacobian_lab import InputError
from jacobian_lab._files import load_arrays, save_arrays
from studies.frame.dataset import Arrays

Work: TypeAlias = Mapping[str, Callable[[], Arrays]]
"""Names of pieces, and what computes each. `functools.partial` of one function sends an engine the
function once.
"""


class Turn:
    """Whose code works in this process, of several runs that threads carry out: matplotlib's
    settings and the filters of warnings belong to the process.
    """

    def __init__(self) -> None:
        self._lock, self._owner = Lock(), 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = get_ident()

    def __exit__(self, *_: object) -> None:
        self._owner = 0
        self._lock.release()

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Let others work in this block, which waits; whoever has no turn waits without."""
        if self._owner != get_ident():
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


TURN = Turn()


class Needs(NamedTuple):
    """What must be the same wherever a run's pieces are computed."""

    code: dict[str, Any]
    """Hash of the sources, and versions, as in the run's claim."""
    weights: dict[str, Any]
    """Name of a model -> hashes, as in the run's claim."""
    kinds: dict[str, str]
    """Name of a model -> its kind."""


class Engine(Protocol):
    """Computes pieces somewhere else."""

    def __call__(self, work: Work, needs: Needs | None) -> Iterator[tuple[str, Arrays]]:
        """Yield name and arrays of each piece, as they are finished."""


class Pieces:
    """Pieces of a computation in a folder.

    Parameters
    ----------
    folder : Path
    needs : Needs, optional
        Of the run, for an engine.
    """

    def __init__(self, folder: Path, needs: Needs | None = None) -> None:
        self.folder, self.needs = folder, needs
        self.names: list[str] = []
        self.found = 0
        self.engine: Engine | None = None
        self.progress: Callable[..., Any] = tqdm

    def path(self, name: str) -> Path:
        """Return the file of the piece of this name."""
        return self.folder / f"{name}.npz"

    def __call__(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """Return the piece of this name: from disk if it is there undamaged, else computed and
        written whole.
        """
        return self.each("", {name: compute})[0]

    def each(self, what: str, work: Work, *, here: bool = False) -> list[Arrays]:
        """Return pieces in the order of their names, after computing those that are missing.

        Parameters
        ----------
        what : str
            Title of the progress bar; without, there is none.
        work : mapping
            Name -> function that computes the piece.
        here : bool
            Compute in this process, also if there is an engine.
        """
        found = {name: stored for name in work if (stored := self._stored(name)) is not None}
        missing = {name: function for name, function in work.items() if name not in found}
        self.names += [self.path(name).name for name in work]
        self.found += len(found)
        elsewhere = self.engine is not None and not here
        progress = self.progress if elsewhere else tqdm
        with progress(
            total=len(work), initial=len(found), desc=what, unit="piece", disable=not what
        ) as bar:
            for name, arrays in self._computed(missing, elsewhere):
                save_arrays(self.path(name), arrays)
                found[name] = arrays
                bar.update()
        return [found[name] for name in work]

    def _computed(self, work: Work, elsewhere: bool) -> Iterator[tuple[str, Arrays]]:
        if elsewhere and self.engine is not None:
            yield from self.engine(work, self.needs)
        else:
            yield from ((name, function()) for name, function in work.items())

    def _stored(self, name: str) -> Arrays | None:
        if self.path(name).is_file():
            with suppress(InputError):
                return load_arrays(self.path(name), "It is computed again")
        return None
