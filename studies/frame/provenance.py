"""Where a run comes from: what makes it this one, its claim, and what a reader needs to repeat it,
its manifest.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from jacobian_lab import InputError
from jacobian_lab._files import read_json
from mnist.runs import Claim, code
from mnist.weights import COMPUTES, read_card
from studies.frame.model_files import pipeline_hash
from studies.frame.user_models import made_hash

PACKAGES = ("jacobian_lab", "mnist", "studies")
OUTSIDE = ("out", "processes", "data_folder", "download", "parameters_of")
"""Options that change no number."""
MADE = "made"
"""The kind of a model that a function of the user's makes."""
PIPELINE, PIPELINE_LIBRARIES = "pipeline", ("diffusers", "transformers")
"""The kind of a model in diffusers' format, and what else runs it."""


class Computed(Protocol):
    """What of a study makes its runs; see `studies.frame.study.Study`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def models(self) -> Callable[[Any], Mapping[str, str]]:
        """Options -> the models that they use, name -> kind."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """What else its numbers depend on."""


def other_threads(folder: Path) -> str:
    """Return what is to be told of a finished run if another number of threads computed it."""
    try:
        made = read_json(folder / "manifest.json", "a manifest").get("threads")
    except InputError:
        return ""
    now = torch.get_num_threads()
    if made in (None, now):
        return ""
    return (
        f" (computed with {made} thread{'s' * (made != 1)} a piece, and this command would take"
        f" {now}: sums of floats may differ in their last digits)"
    )


def claim_of(study: Computed, config: Any) -> Claim:
    """Return what makes a run this one: study, options but those `OUTSIDE`, weights and code."""
    options = {k: value for k, value in dataclasses.asdict(config).items() if k not in OUTSIDE}
    models = study.models(config)
    weights = {name: identity(name, kind) for name, kind in models.items()}
    # what a user's function calls is unknown
    by_diffusers = not {PIPELINE, MADE}.isdisjoint(models.values())
    libraries = (*(PIPELINE_LIBRARIES if by_diffusers else ()), *study.libraries)
    claim: Claim = json.loads(
        json.dumps(
            {"study": study.name, **options, "weights": weights, "code": code(PACKAGES, libraries)},
            default=str,
        )
    )
    return claim


def identity(name: str, kind: str) -> Any:
    """Return the hashes of a model's weights, and of what uses them."""
    if kind == MADE:
        return made_hash(name)
    return pipeline_hash(name) if kind == PIPELINE else _essentials(read_card(name, kind))


def _essentials(card: dict[str, Any]) -> dict[str, Any]:
    """Return of a model's card what its numbers depend on: the weights, and how they are used."""
    return {key: card[key] for key in COMPUTES if key in card}


def manifest(
    study: Computed, config: Any, claim: Claim, started: float, found: int
) -> dict[str, Any]:
    """Return what a reader needs to repeat the run."""
    versions = {name: number for name, number in claim["code"].items() if name != "sources"}
    return {
        "study": study.name,
        "command": shlex.join(["jacobian-lab", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "pieces_from_an_interrupted_run": found,
        "git": _git(),
        "versions": {
            "python": platform.python_version(),
            **versions,
            "matplotlib": version("matplotlib"),
        },
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "device": getattr(config, "device", "cpu"),
        "seed": getattr(config, "seed", 0),
        "weights": claim["weights"],
    }


def _git() -> dict[str, str | bool] | None:
    """Return commit and cleanness of the repository of this file, or None if it has none."""
    git = shutil.which("git")
    here = Path(__file__)

    def ask(*words: str) -> str:
        done = subprocess.run(
            [str(git), *words],
            cwd=here.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        return done.stdout.strip()

    try:
        # a project that merely encloses our installation is not meant
        ask("ls-files", "--error-unmatch", here.name)
        return {"commit": ask("rev-parse", "HEAD"), "clean": not ask("status", "--porcelain")}
    except (OSError, subprocess.SubprocessError):
        return None
