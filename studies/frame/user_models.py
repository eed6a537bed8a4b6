"""A user's own model, as a function that makes it: `--model file.py:make`, or
`package.module:make`.

The function takes no arguments and returns a `Denoiser`; an object with `denoiser`, `encode`,
`decode` and `image_shape`, as a `Latent` has; or what `jacobian_lab.load` takes. An attribute
`digits = True` says that its images are digits, 1x32x32 and white on black, which the judge can
name.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from modulefinder import ModuleFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from jacobian_lab import Denoiser, InputError, load
from jacobian_lab._checksums import file_hash

PLACE = re.compile(r"(?P<place>.+):(?P<function>[A-Za-z_]\w*)")
GIVEN: dict[str, Any] = {}
"""Models that were handed over in Python, by the name that stands for them meanwhile."""
NEIGHBOURS: dict[str, Path] = {}
"""Modules that models' files have imported from their own folder -> this folder."""
PACKAGES = ("jacobian_lab", "mnist", "studies")
FOLDER = 5
"""What `modulefinder` calls a package."""
PARTS: dict[str, Callable[[Any], bool]] = {
    "denoiser": lambda part: isinstance(part, Denoiser),
    "encode": callable,
    "decode": callable,
    "image_shape": lambda part: len(tuple(part)) == 3,
}
"""What a model of latents has, and what each must be."""


def is_users(name: str) -> bool:
    """Return whether a model's name is that of a function in a file or module."""
    return PLACE.fullmatch(name) is not None


def make(name: str) -> Any:
    """Call the user's function; return the `Denoiser`, or the model of latents, in evaluation mode.

    Raises
    ------
    InputError
        If there is no such file, module or function, it raises, or returns something else.
    """
    function = _function(name) if name not in GIVEN else partial(copy.deepcopy, GIVEN[name])
    try:
        made = function() if not isinstance(function, nn.Module) else function
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--model {name} raised {type(error).__name__}: {error}") from error
    if not isinstance(made, Denoiser) and not _is_of_latents(made):
        try:
            made = load(made)
        except InputError as error:
            why = str(error).partition(". Known are:")[0].splitlines()[0]
            raise InputError(
                f"--model {name} returned a {type(made).__name__}: expected a"
                f" jacobian_lab.Denoiser, an object with {', '.join(PARTS)}, or what load takes"
                f" ({why})"
            ) from error
    denoiser_of(made).eval()
    return made


def _is_of_latents(made: Any) -> bool:
    return all(hasattr(made, part) and holds(getattr(made, part)) for part, holds in PARTS.items())


def _function(name: str) -> Any:
    place, function = _split(name)
    module = _module(place, name)
    if not hasattr(module, function):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise InputError(
            f"--model {name}: {place} has no function {function!r}; it has"
            f" {', '.join(known) or 'none'}"
        )
    found = getattr(module, function)
    if not callable(found):
        raise InputError(f"--model {name}: {function} is a {type(found).__name__}, no function")
    return found


def _split(name: str) -> tuple[str, str]:
    match = PLACE.fullmatch(name)
    assert match is not None
    return match["place"], match["function"]


def _module(place: str, name: str) -> ModuleType:
    """Import a file or a module, or raise one line that says what went wrong in it."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        return _run(Path(place).expanduser().resolve(), name)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if place.split(".")[0] == error.name:
            raise InputError(
                f"--model {name}: there is no module {place!r}; a file is named with its ending,"
                f" such as {place}.py:{_split(name)[1]}"
            ) from error
        raise InputError(f"--model {name}: {place} cannot be imported: {error}") from error
    except Exception as error:
        raise InputError(
            f"--model {name}: {place} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _run(path: Path, name: str) -> ModuleType:
    """Run a file as a module of its own, which may import its neighbours."""
    if not path.is_file():
        raise InputError(f"--model {name}: there is no file {path}")
    key = f"_jacobian_lab_model_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(key, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module  # as dataclasses and pickle expect
    _forget_namesakes(path.parent)
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        for found in sys.modules.keys() - before:
            places = getattr(sys.modules[found], "__path__", ())  # a folder has no file
            file = getattr(sys.modules[found], "__file__", None) or next(iter(places), None)
            ours = found.partition(".")[0] in PACKAGES
            if file and path.parent in Path(file).parents and not ours:
                NEIGHBOURS[found] = path.parent
    return module


def _forget_namesakes(folder: Path) -> None:
    """Drop modules that models in other folders imported under the names of this one's files: who
    has imported them keeps them.
    """
    for name, owner in [*NEIGHBOURS.items()]:
        top = name.partition(".")[0]
        if owner != folder and any((folder / end).exists() for end in (f"{top}.py", top)):
            del NEIGHBOURS[name]
            sys.modules.pop(name, None)


@contextmanager
def registered(model: Any) -> Iterator[str]:
    """Give a name to a model at hand, for as long as a study runs; a name stays as it is."""
    if isinstance(model, str):
        yield model
        return
    kind = type(model.network if isinstance(model, Denoiser) else model).__name__
    name = next(n for k in count() if (n := f"given{k or ''}:{kind}") not in GIVEN)
    GIVEN[name] = model
    try:
        yield name
    finally:
        del GIVEN[name]
        first.cache_clear()


@cache
def first(name: str) -> Any:
    """Return the model as made once for what is asked before a run: its schedule, its hash."""
    return make(name)


def denoiser_of(made: Any) -> Denoiser:
    """Return the denoiser of what `make` returned."""
    found = made if isinstance(made, Denoiser) else made.denoiser
    assert isinstance(found, Denoiser)
    return found


def modules_of(made: Any) -> list[nn.Module]:
    """Return the networks of what `make` returned: the denoiser, and of latents what encodes and
    decodes, also in a pipeline.
    """
    if isinstance(made, nn.Module):
        return [made]
    parts = [made.denoiser, *vars(made).values()]
    for part in list(parts):
        parts += getattr(part, "components", {}).values()  # of a pipeline of diffusers
    return [part for part in parts if isinstance(part, nn.Module)]


def dtype_of(denoiser: Denoiser) -> torch.dtype:
    """Return the precision of a model's weights, float32 if it has none."""
    numbers = [*denoiser.parameters(), *denoiser.buffers()]
    return next((x.dtype for x in numbers if x.is_floating_point()), torch.float32)


def made_hash(name: str) -> dict[str, str]:
    """Return what makes a user's model this one: the SHA-256 of its sources, its own and those of
    its neighbours that it imports, of its noise levels, and of its weights.
    """
    made = first(name)
    place, _ = _split(name)
    is_file = place.endswith(".py")
    sources = _imported(Path(place).expanduser()) if is_file else _package(place)
    schedule = denoiser_of(made).schedule
    times = schedule.times(min(10, getattr(schedule, "steps", 10)))
    levels = [f"{float(c):.6g}" for t in times for c in schedule(t)]
    found = {"levels": hashlib.sha256(" ".join(levels).encode()).hexdigest()}
    if sources:
        hashes = "\n".join(file_hash(source) for source in sources)
        found["source"] = hashlib.sha256(hashes.encode()).hexdigest()
    return found | {"weights": weights_hash(modules_of(made))}


def _imported(source: Path) -> list[Path]:
    """Return a file and those beside it and below that it imports, directly or not."""
    finder = _Finder(path=[str(source.resolve().parent)], excludes=PACKAGES)
    finder.run_script(str(source))
    found = (getattr(module, "__file__", None) for module in finder.modules.values())
    files = {Path(file) for file in found if file}
    return [source, *sorted(files - {source})]


class _Finder(ModuleFinder):
    """A finder that also enters folders without `__init__.py`, on which Python's own fails."""

    def find_module(self, name: str, path: Any, parent: Any = None) -> Any:
        """Return file, place and kind of a module."""
        try:
            return super().find_module(name, path, parent)
        except AttributeError:  # its loader is None
            inside = (Path(place) / name for place in (self.path if path is None else path))
            return None, str(next(filter(Path.is_dir, inside))), ("", "", FOLDER)

    def load_package(self, fqname: str, pathname: str) -> Any:
        """Return a package, after running its `__init__.py` if it has one."""
        if (Path(pathname) / "__init__.py").is_file():
            return super().load_package(fqname, pathname)
        module: Any = self.add_module(fqname)
        module.__path__ = [pathname]
        return module


def _package(module: str) -> list[Path]:
    """Return the files of a module's package, or the module's own where it has none."""
    top = importlib.util.find_spec(module.partition(".")[0])
    if top and top.submodule_search_locations:
        return sorted(
            path for place in top.submodule_search_locations for path in Path(place).rglob("*.py")
        )
    return [Path(top.origin)] if top and top.origin and Path(top.origin).is_file() else []


def weights_hash(modules: list[nn.Module]) -> str:
    """Return the SHA-256 of the names and numbers of all weights and buffers."""
    total = hashlib.sha256()
    for module in modules:
        for key, value in sorted(module.state_dict().items()):
            if isinstance(value, Tensor):
                total.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
                total.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
