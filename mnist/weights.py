"""Weights that ship: half precision on disk, float32 in memory, each with a card that says where
they come from.

A model is two files, `NAME.safetensors` and `NAME.json`, the card: architecture, training command,
data, steps, scores, the SHA-256 of the weights, and that of the card itself. Loading checks both
and every shape, reads safetensors only, and never uses a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from jacobian_lab import Denoiser, DiscreteSchedule, InputError, RectifiedFlow, _require
from jacobian_lab._files import json_bytes, json_hash, read_json, write_whole
from mnist.classifier import Classifier
from mnist.data import SHAPE
from mnist.unet import UNet

Card: TypeAlias = dict[str, Any]
Model = TypeVar("Model")
Network = TypeVar("Network", bound=nn.Module)
SHIPPED = Path(__file__).parent / "weights"
"""Folder of the models that ship."""
ALIASES = {"mnist": "denoiser", "mnist-flow": "flow"}
"""What studies call the models that ship."""
COMPUTES = ("sha256", "architecture", "prediction")
"""Entries of a card that the numbers of its model depend on."""
CHECKSUM = "card_sha256"
"""Entry of a card with the hash of its other entries."""


def load_denoiser(
    name: str | Path = "denoiser",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Denoiser:
    """Return a trained denoiser of (1, 32, 32) images, in evaluation mode, its weights frozen.

    Parameters
    ----------
    name : str or path
        "denoiser" ships with the project. A path such as `runs/train-denoiser/denoiser` loads what
        you trained.
    device, dtype
        Where to, and in which precision.

    Raises
    ------
    InputError
        If a file is missing, damaged, or does not fit the architecture that its card states.
    """
    _require.device(device)
    _require.precision(dtype)
    card = read_card(name, "denoiser")
    denoiser = _build(name, lambda: build_denoiser(card["architecture"], card["prediction"]))
    load_weights(name, card, denoiser.network)  # type: ignore[arg-type]
    return denoiser.to(device, dtype).eval().requires_grad_(False)


def load_classifier(
    name: str | Path = "classifier",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Classifier:
    """Return a trained digit classifier, in evaluation mode, its weights frozen.

    Parameters
    ----------
    name : str or Path
        Of a shipped model, or the path of weights and card without ending; see `load_denoiser`.
    device : torch.device or str
    dtype : torch.dtype
    """
    return load_network(name, "classifier", Classifier, device, dtype)


def load_network(
    name: str | Path,
    kind: str,
    make: Callable[..., Network],
    device: torch.device | str,
    dtype: torch.dtype,
) -> Network:
    """Return a trained network of a kind, made from what its card calls the architecture, in
    evaluation mode, its weights frozen.
    """
    _require.device(device)
    _require.precision(dtype)
    card = read_card(name, kind)
    network = _build(name, lambda: make(**card["architecture"]))
    load_weights(name, card, network)
    return network.to(device, dtype).eval().requires_grad_(False)


def build_denoiser(architecture: dict[str, Any], prediction: str) -> Denoiser:
    """Return an untrained MNIST denoiser on the linear DDPM schedule, or on that of rectified flow
    if it predicts the flow.
    """
    schedule = RectifiedFlow() if prediction == "flow" else DiscreteSchedule.linear()
    return Denoiser(UNet(**architecture), schedule, prediction, SHAPE)  # type: ignore[arg-type]


def save_model(path: Path, network: nn.Module, card: Card) -> None:
    """Write weights in half precision and their card, each whole or not at all.

    Parameters
    ----------
    path : Path
        Without ending; `path`.safetensors and `path`.json are written.
    network : nn.Module
    card : dict
        The SHA-256 of the weights is added.
    """
    halves = {
        key: value.detach().cpu().half().contiguous() for key, value in network.state_dict().items()
    }
    content = save(halves)
    path = path.absolute()  # a bare word is the name of a shipped model
    write_whole(weights_file(path, ".safetensors"), content)
    write_card(path, card | {"sha256": hashlib.sha256(content).hexdigest()})


def read_card(name: str | Path, kind: str) -> Card:
    """Return the card of a model of the given kind."""
    if not isinstance(name, str | Path) or not Path(name).name:
        raise InputError(f"a model is named by a word or a path: got {name!r}")
    path = weights_file(name, ".json")
    if not path.is_file():
        shipped = ", ".join(sorted(card.stem for card in SHIPPED.glob("*.json")))
        raise InputError(
            f"no model {str(name)!r}: {path} does not exist. Shipped are: {shipped}; "
            "`jacobian-lab train` makes others, loaded by their path without ending"
        )
    card: Card = read_json(path, "a model card: restore it, or train the model again")
    noted, found = card.pop(CHECKSUM, None), json_hash(card)
    if noted != found:
        raise InputError(
            f"the card {path} is damaged: its checksum is {found}, expected {noted}. Restore it, or"
            " train the "
            f'model again; if you changed it on purpose, write "{CHECKSUM}": "{found}" into it'
        )
    if card.get("kind") != kind:
        raise InputError(f"{path} describes a {card.get('kind')}: expected a {kind}")
    return card


def read_weights(name: str | Path, card: Card) -> bytes:
    """Return the content of the file of weights, after checking its hash."""
    path = weights_file(name, ".safetensors")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the weights {path} are missing: reinstall the project, or train the model again with "
            f"`{card.get('command', 'jacobian-lab train')}` ({error.strerror})"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != card.get("sha256"):
        raise InputError(
            f"the weights {path} are damaged or not those of their card: their SHA-256 is {digest},"
            f" expected {card.get('sha256')}. Reinstall the project, or train the model again"
        )
    return content


def load_weights(name: str | Path, card: Card, network: nn.Module) -> None:
    """Load weights into a network, float32, after checking the hash and the shapes.

    Parameters
    ----------
    name : str or Path
        Of a shipped model, or a path without ending.
    card : dict
        Of the model, as `read_card` returns it.
    network : nn.Module
        Of the architecture that the card states.

    Raises
    ------
    InputError
        If the file is missing or damaged, or does not fit the network.
    """
    content = read_weights(name, card)
    try:
        network.load_state_dict({key: value.float() for key, value in load(content).items()})
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"the weights {weights_file(name, '.safetensors')} do not fit the architecture of their"
            f" card, {card.get('architecture')}: {error}"
        ) from error


def write_card(name: str | Path, card: Card) -> None:
    """Write the card of a model, its checksum added, whole or not at all."""
    write_whole(weights_file(name, ".json"), json_bytes(card | {CHECKSUM: json_hash(card)}))


def weights_file(name: str | Path, ending: str) -> Path:
    """Return the file of a shipped name or of a user's path, with the ending ".safetensors" or
    ".json"; the name may carry either.
    """
    text = ALIASES.get(str(name), str(name))
    path = SHIPPED / text if "/" not in text and "\\" not in text else Path(text)
    stem = path.stem if path.suffix in (".safetensors", ".json") else path.name  # "lr0.001"
    return path.parent / f"{stem}{ending}"


def _build(name: str | Path, make: Callable[[], Model]) -> Model:
    try:
        return make()
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"the card of {str(name)!r} describes no model that can be built: {error!r}. Restore"
            " it, or train the model again"
        ) from error
