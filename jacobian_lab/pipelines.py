"""A diffusers pipeline from a folder, a hub id or an object, and its scheduler as a schedule and a prediction type.

What is opened: `StableDiffusionPipeline` (1.x, 2.x), `StableDiffusion3Pipeline`, and InstaFlow's `RectifiedFlowPipeline`, which
is a `StableDiffusionPipeline` whose network predicts a velocity. Safetensors only, no code from a repository, and nothing is
downloaded unasked; the safety checker is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn

from jacobian_lab.denoiser import Prediction
from jacobian_lab.device import check_device
from jacobian_lab.errors import InputError
from jacobian_lab.schedule import DiscreteSchedule, RectifiedFlow, Schedule

Said: TypeAlias = Prediction | Literal["instaflow"]
INSTAFLOW = ("RectifiedFlowPipeline", "InstaFlowPipeline")
"""Class names of InstaFlow's own releases, and of the pipeline in diffusers' community folder."""
NETWORKS = {"StableDiffusionPipeline": "unet", "StableDiffusion3Pipeline": "transformer", **dict.fromkeys(INSTAFLOW, "unet")}
"""Pipeline class -> its component that denoises."""
DIFFUSERS_NAMES: dict[Any, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
WEIGHTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


@dataclass(frozen=True)
class Convention:
    """What a network predicts, and at which time: all that the Denoiser needs beside the network."""

    schedule: Schedule
    prediction: Prediction
    time_scale: int = 1
    """The network gets `t * time_scale`."""
    sign: int = 1
    """-1 where the network predicts `x_0 - noise`."""


def open_pipeline(source: Any, device: torch.device | str | None, dtype: torch.dtype | None,  # noqa: ANN401
                  download: bool) -> tuple[Any, str]:
    """Return the pipeline, its networks in evaluation mode and frozen, and the name of its class.

    The name is the one that a folder states, which may be InstaFlow's; see `jacobian_lab.latent.load_latent`.
    """
    _check_extra()
    if device is not None:
        check_device(device)
    if dtype is not None and not dtype.is_floating_point:
        raise InputError(f"dtype must be a floating-point type: got {dtype}")
    if isinstance(source, (str, Path)):
        pipeline, name = _load(_folder(source, download), dtype or torch.float32)
        dtype = None  # some parts may keep float32 on purpose (T5 in half precision)
    else:
        pipeline = source
        name = next((c.__name__ for c in type(pipeline).__mro__ if c.__name__ in NETWORKS), "")
    if not name:
        raise InputError(f"cannot take a {type(source).__name__}: expected a folder, a hub id, or one of {', '.join(NETWORKS)}")
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    move = {key: value for key, value in (("device", device), ("dtype", dtype)) if value is not None}
    if move:
        _check_not_offloaded(modules)
    for part in modules:
        (part.to(**move) if move else part).eval().requires_grad_(False)
    return pipeline, name


def read_convention(pipeline: Any, name: str, said: Said | None) -> Convention:  # noqa: ANN401
    """Read what the network predicts; `said` must agree, except that "instaflow" overrides the scheduler.

    Parameters
    ----------
    pipeline, name
        From `open_pipeline`.
    said : str, optional
        What the user says.

    Raises
    ------
    InputError
        If the pipeline does not tell, contradicts `said`, or its weights come from InstaFlow and its scheduler knows nothing
        of it.
    """
    if said is not None and said not in (*get_args(Prediction), "instaflow"):
        raise InputError(f"unknown prediction {said!r}: expected one of {', '.join(get_args(Prediction))}, instaflow")
    if name in INSTAFLOW and said not in (None, "instaflow"):
        raise InputError(f"prediction={said!r}, but a {name} predicts x_0 - noise: leave it out")
    if name in INSTAFLOW or said == "instaflow":
        return _flow(pipeline.scheduler, sign=-1)
    config, kind = pipeline.scheduler.config, type(pipeline.scheduler).__name__
    flow = kind.startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction"
    found = _flow(pipeline.scheduler, sign=1) if flow else _from_table(pipeline.scheduler)
    origin = str(getattr(pipeline, NETWORKS[name]).config.get("_name_or_path") or pipeline.config.get("_name_or_path") or "")
    if said is None and any(word in origin.lower() for word in ("instaflow", "rectified_flow")):
        raise InputError(f"the weights come from {origin!r}, but the scheduler ({kind}) says {found.prediction!r}, as that of "
                         'InstaFlow does. Pass prediction="instaflow" if the network predicts x_0 - noise, or '
                         f"prediction={found.prediction!r} if the scheduler is right")
    if said not in (None, found.prediction):
        raise InputError(f"prediction={said!r}, but the scheduler ({kind}) says {found.prediction!r}: leave it out, or correct "
                         "scheduler/scheduler_config.json")
    return found


def _flow(scheduler: Any, sign: int) -> Convention:  # noqa: ANN401
    if scheduler.config.get("invert_sigmas"):
        raise InputError(f"{type(scheduler).__name__} has invert_sigmas, time the other way round: expected data at 0")
    return Convention(RectifiedFlow(), "flow", int(scheduler.config.num_train_timesteps), sign)


def _from_table(scheduler: Any) -> Convention:  # noqa: ANN401
    name, said = type(scheduler).__name__, scheduler.config.get("prediction_type")
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise InputError(f"{name} has no table alphas_cumprod, and is no flow: expected a scheduler such as DDIMScheduler or "
                         "FlowMatchEulerDiscreteScheduler")
    if said not in DIFFUSERS_NAMES:
        raise InputError(f"the scheduler's prediction_type is {said!r}: expected one of {', '.join(DIFFUSERS_NAMES)}, "
                         "flow_prediction (scheduler/scheduler_config.json)")
    return Convention(DiscreteSchedule(table), DIFFUSERS_NAMES[said])


def _check_extra() -> None:
    try:
        import diffusers  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise InputError(f"Stable Diffusion needs diffusers and transformers ({error}): "
                         'pip install "jacobian-lab[sd]"') from error


def _folder(source: str | Path, download: bool) -> Path:
    """Return the folder of a pipeline: itself, or the snapshot of a hub id."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or source.count("/") != 1 or source[0] in "./~":
        raise InputError(f"there is no folder {str(source)!r}: expected a folder in diffusers' format, or a hub id OWNER/NAME")
    return _snapshot(source, download)


def _snapshot(hub_id: str, download: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    options: dict[str, Any] = {"local_files_only": not download}
    try:
        index = hf_hub_download(hub_id, "model_index.json", **options)
        unused = dict.fromkeys(UNUSED)
        kind = _pipeline_class(_read_index(Path(index).parent))
        return Path(kind.download(hub_id, use_safetensors=True, trust_remote_code=False, **options, **unused))
    except (OSError, HFValidationError) as error:
        remedy = "the hub said: " + _first_line(error) if download else "pass download=True to fetch it"
        raise InputError(f"{hub_id!r} is no folder, and not in the hub's cache: {remedy}") from error


def _read_index(folder: Path) -> dict[str, Any]:
    """Return model_index.json of a folder whose class and network are known."""
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{str(folder)!r} has no model_index.json: it is no pipeline in diffusers' format "
                         "(pipeline.save_pretrained writes one)") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no JSON: {error}") from error
    if not any((index.get(network) or [None])[0] for network in ("unet", "transformer")):
        raise InputError(f"{str(folder)!r} has no unet and no transformer in its model_index.json: nothing there denoises")
    if index.get("_class_name") not in NETWORKS:
        raise InputError(f"{str(folder)!r} is a {index.get('_class_name')}: expected one of {', '.join(NETWORKS)}")
    return index


def _pipeline_class(index: dict[str, Any]) -> Any:  # noqa: ANN401
    import diffusers

    name = index["_class_name"]
    return getattr(diffusers, "StableDiffusionPipeline" if name in INSTAFLOW else name)


def _check_weights(folder: Path, index: dict[str, Any]) -> None:
    for name in WEIGHTS:
        if (index.get(name) or [None])[0] is None:
            continue
        files = [path.name for path in (folder / name).glob("*")]
        if any(file.endswith(".safetensors") for file in files):
            continue
        pickled = [file for file in files if file.endswith((".bin", ".ckpt", ".pt", ".pth"))]
        if pickled:
            raise InputError(f"{str(folder / name)!r} has pickled weights only ({pickled[0]}), which can run code when they "
                             "are read: save the pipeline anew with save_pretrained, which writes safetensors")
        raise InputError(f"{str(folder / name)!r} has no weights: expected a .safetensors file")


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, str]:
    from safetensors import SafetensorError

    index = _read_index(folder)
    _check_weights(folder, index)
    unused: dict[str, Any] = {name: None for name in UNUSED if name in index}
    if "safety_checker" in unused:
        unused["requires_safety_checker"] = False
    try:
        pipeline = _pipeline_class(index).from_pretrained(folder, use_safetensors=True, trust_remote_code=False,
                                                          local_files_only=True, dtype=dtype, **unused)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"diffusers cannot load {str(folder)!r}: {_first_line(error)}") from error
    return pipeline, index["_class_name"]


def _check_not_offloaded(modules: list[nn.Module]) -> None:
    if any(hasattr(module, hook) for part in modules for module in part.modules() for hook in ("_hf_hook", "_diffusers_hook")):
        raise InputError("this pipeline is offloaded: its hooks place the weights. Leave device and dtype out")


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
