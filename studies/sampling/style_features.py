"""What a style is read off: layers of the digit classifier, or of a CLIP vision model for natural
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import mnist
from jacobian_lab import InputError
from jacobian_lab._checksums import check_folder
from jacobian_lab.constraints.losses import Features, layers
from studies.frame.model_files import cached_folder, folder_hash

CLASSIFIER, CLIP = "classifier", "openai/clip-vit-base-patch16"
CLASSIFIER_LAYERS = ("body.2", "body.5")
CLIP_LAYERS = ("vision_model.encoder.layers.1",)
"""The second block: of later ones the features say what is shown, more than how."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels that CLIP was trained on, in [0, 1]."""


def clip_folder(source: str) -> Path:
    """Return where a CLIP model lies, a folder or a hub id in the local cache, or raise."""
    return cached_folder(source, f"--features {source}")


def clip_hash(source: str) -> str:
    """Return the SHA-256 of the weights of a CLIP model."""
    folder = clip_folder(source)
    ending = next(
        (ending for ending in (".safetensors", ".bin") if any(folder.rglob(f"*{ending}"))), None
    )
    if ending is None:
        raise InputError(
            f"--features {source}: there are no weights in {folder}, .safetensors or .bin"
        )
    return folder_hash(folder, (ending,))


def load_features(source: str, names: Sequence[str], device: str) -> Features:
    """Return the function from images, (B, c, H, W) in [-1, 1], to the features of named layers,
    each (B, channels, ...).

    Parameters
    ----------
    source : str
        "classifier", of digits; or the folder or the hub id of a CLIP vision model.
    names : sequence of str
        Modules of the network; none takes the default of the source.

    Raises
    ------
    InputError
        If the model is not there or is no CLIP, or has no such layer.
    """
    if source == CLASSIFIER:
        return layers(mnist.load_classifier(device=device), names or CLASSIFIER_LAYERS)
    network = _load_clip(source).to(device)
    # transformers 4 has a module of this name, 5 has not
    body = getattr(network, "vision_model", network)
    found = layers(body, [name.removeprefix("vision_model.") for name in names or CLIP_LAYERS])
    size = int(network.config.image_size)
    mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (MEAN, STD))

    def features(images: Tensor) -> list[Tensor]:
        shown = F.interpolate(
            (images.expand(-1, 3, -1, -1) + 1) / 2, (size, size), mode="bicubic", antialias=True
        )
        return [_by_place(value) for value in found((shown - mean) / std)]

    return features


def _by_place(features: Any) -> Tensor:
    """Return features as (B, channels, places): a block's tokens without the first, the class
    token, which has no place.
    """
    value: Tensor = features if isinstance(features, Tensor) else features[0]
    if value.ndim < 3:
        raise InputError(
            f"a layer of --layers has features of shape {tuple(value.shape)}: expected a vector for"
            " each place of the image, (B, tokens, channels) or (B, channels, h, w)"
        )
    return value[:, 1:].mT if value.ndim == 3 else value


def _load_clip(source: str) -> Any:
    try:
        from transformers import AutoConfig, CLIPVisionModel
    except ImportError as error:
        raise InputError(
            f'--features {source} needs transformers ({error}): pip install "jacobian-lab[sd]"'
        ) from error
    folder = clip_folder(source)
    check_folder(folder)
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    except Exception as error:  # a damaged configuration can raise nearly anything
        raise InputError(
            f"--features {source} is not the folder of a CLIP vision model, such as {CLIP}: {error}"
        ) from error
    if kind not in ("clip", "clip_vision_model"):
        raise InputError(
            f"--features {source} is a {kind}: expected a CLIP vision model, such as {CLIP}"
        )
    try:
        network, report = CLIPVisionModel.from_pretrained(
            folder, local_files_only=True, weights_only=True, output_loading_info=True
        )
    except Exception as error:  # so can damaged weights
        raise InputError(
            f"--features {source} cannot be loaded: {error}. Fetch or save it again"
        ) from error
    if report["missing_keys"]:
        raise InputError(
            f"--features {source} lacks weights of a CLIP vision model: "
            f"{', '.join(sorted(map(str, report['missing_keys'])))}"
        )
    return network.float().eval().requires_grad_(False)
