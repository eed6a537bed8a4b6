"""A pipeline in one file of safetensors, where diffusers can read it; pickles are refused.

    load("model.safetensors", config="folder of the same kind", prompt="a cat")

A single file has no configuration. diffusers guesses it and fetches it from the hub; here a folder
in diffusers' format gives it, offline, and what the file lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from jacobian_lab._require import diffusers
from jacobian_lab.diffusion.adapters.pipelines import UNUSED, pipeline_class, read_index
from jacobian_lab.errors import InputError

PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")


def is_file(source: Any) -> bool:
    """Return whether a source names one file of weights."""
    return isinstance(source, str | Path) and str(source).lower().endswith(
        (".safetensors", *PICKLED)
    )


def open_file(source: str | Path, config: str | Path, dtype: torch.dtype) -> Any:
    """Return the pipeline in a file.

    Parameters
    ----------
    source : str or Path
    config : str or Path
        A folder in diffusers' format of the same kind of model.
    dtype : torch.dtype

    Raises
    ------
    InputError
        If the file is pickled or missing, or diffusers cannot read it with this configuration.
    """
    refuse_pickles(source)
    if not Path(source).expanduser().is_file():
        raise InputError(f"there is no file {str(source)!r}")
    diffusers()
    index = read_index(Path(config).expanduser())
    unused: dict[str, Any] = {name: None for name in UNUSED if name in index}
    try:
        pipeline = pipeline_class(index).from_single_file(
            str(source), config=str(config), torch_dtype=dtype, local_files_only=True, **unused
        )
    except Exception as error:  # whatever the converter stumbles over
        first = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        missing = "it lacks weights" if "meta tensor" in first else first
        raise InputError(
            f"diffusers cannot read {str(source)!r} as a {index['_class_name']} like"
            f" {str(config)!r}: {missing}"
        ) from error
    for name, part in pipeline.components.items():
        weights = part.state_dict() if isinstance(part, nn.Module) else {}
        lost = sorted(key for key, value in weights.items() if value.is_meta)
        if lost:  # diffusers leaves them without values
            raise InputError(
                f"{str(source)!r} lacks {len(lost)} weights of the {name}, the first of them"
                f" {lost[0]}: the file is damaged, or of another model"
            )
    return pipeline


def refuse_pickles(source: str | Path) -> None:
    """Raise if a file is pickled: reading it can run code."""
    if str(source).lower().endswith(PICKLED):
        raise InputError(
            f"{str(source)!r} is a pickle, which can run code when it is read. Convert it once:"
            " safetensors.torch.save_file(torch.load(file, weights_only=True), 'model.safetensors')"
            " (take the entry with the weights, such as ['state_dict']), and load that; or load the"
            " network yourself and pass the object"
        )
