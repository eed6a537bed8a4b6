"""The keyword arguments that carry a prompt into the networks of diffusers' pipelines.

Each function asks the pipeline's own `encode_prompt`, and returns the arguments for the prompt and,
if both are asked for, for the negative prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from jacobian_lab.diffusion.adapters.conditions import Held


@dataclass(frozen=True)
class Asked:
    """What the user asked for."""

    prompt: str
    negative_prompt: str
    both: bool
    """Whether the negative prompt is embedded, too."""
    size: tuple[int, int]
    """Height and width of the image, in pixels."""
    embedded_guidance: float
    """What a network with a guidance embedding is told."""


def _encoded(pipeline: Any, asked: Asked, **more: Any) -> Any:
    return pipeline.encode_prompt(
        asked.prompt,
        device=pipeline._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=asked.both,
        **{"negative_prompt": asked.negative_prompt if asked.both else None} | more,
    )


def _text(pipeline: Any, asked: Asked) -> list[Held]:
    """Stable Diffusion 1 and 2: the prompt's tokens."""
    return [{"encoder_hidden_states": e} for e in _encoded(pipeline, asked)]


def _text_and_pooled(pipeline: Any, asked: Asked) -> list[Held]:
    """Stable Diffusion 3: the prompt's tokens, and one vector."""
    more = {"prompt_2": None, "prompt_3": None}
    positive, negative, pooled, negative_pooled = _encoded(pipeline, asked, **more)
    pairs = ((positive, pooled), (negative, negative_pooled))
    return [{"encoder_hidden_states": e, "pooled_projections": p} for e, p in pairs]


def _text_and_sizes(pipeline: Any, asked: Asked) -> list[Held]:
    """SDXL: tokens, one vector, and the image's size, crop and target size.

    As in diffusers, no negative prompt is zeros where the pipeline says so.
    """
    none = {} if asked.negative_prompt else {"negative_prompt": None}
    positive, negative, pooled, negative_pooled = _encoded(pipeline, asked, **none)
    sizes = positive.new_tensor([[*asked.size, 0, 0, *asked.size]])
    return [
        {"encoder_hidden_states": e, "added_cond_kwargs": {"text_embeds": p, "time_ids": sizes}}
        for e, p in ((positive, pooled), (negative, negative_pooled))
    ]


def _text_and_mask(pipeline: Any, asked: Asked) -> list[Held]:
    """PixArt, Sana, Lumina 2: tokens, and which of them are the prompt's."""
    said = inspect.signature(pipeline.__call__).parameters.get("complex_human_instruction")
    more = {} if said is None else {"complex_human_instruction": said.default}
    positive, mask, negative, negative_mask = _encoded(pipeline, asked, **more)
    pairs = ((positive, mask), (negative, negative_mask))
    return [{"encoder_hidden_states": e, "encoder_attention_mask": m} for e, m in pairs]


def _text_mask_and_nothing(pipeline: Any, asked: Asked) -> list[Held]:
    """PixArt sigma: as above; its network asks for sizes that it does not use."""
    added = {"resolution": None, "aspect_ratio": None}
    return [{**of, "added_cond_kwargs": added} for of in _text_and_mask(pipeline, asked)]


def _text_mask_and_sizes(pipeline: Any, asked: Asked) -> list[Held]:
    """PixArt alpha: models of 1024 x 1024 pixels are told the size."""
    held = _text_mask_and_nothing(pipeline, asked)
    if pipeline.transformer.config.sample_size == 128:
        text = held[0]["encoder_hidden_states"]
        h, w = asked.size
        added = {
            "resolution": text.new_tensor([[h, w]]),
            "aspect_ratio": text.new_tensor([[h / w]]),
        }
        held = [{**of, "added_cond_kwargs": added} for of in held]
    return held


def _text_alone(pipeline: Any, asked: Asked) -> list[Held]:
    """AuraFlow: tokens; the mask is in them."""
    positive, _, negative, _ = _encoded(pipeline, asked)
    return [{"encoder_hidden_states": positive}, {"encoder_hidden_states": negative}]


def _text_pooled_and_guidance(pipeline: Any, asked: Asked) -> list[Held]:
    """FLUX: tokens, one vector, and for a distilled network the guidance that it imitates."""
    held: list[Held] = []
    for text in (asked.prompt, asked.negative_prompt) if asked.both else (asked.prompt,):
        tokens, pooled, _ = pipeline.encode_prompt(text, None, pipeline._execution_device)
        told = {}
        if pipeline.transformer.config.guidance_embeds:
            told = {"guidance": torch.full((1,), asked.embedded_guidance, device="cpu").to(tokens)}
        held.append({"encoder_hidden_states": tokens, "pooled_projections": pooled, **told})
    return held


EMBED: dict[str, Callable[[Any, Asked], list[Held]]] = {
    "StableDiffusionXLPipeline": _text_and_sizes,
    "StableDiffusion3Pipeline": _text_and_pooled,
    "PixArtAlphaPipeline": _text_mask_and_sizes,
    "PixArtSigmaPipeline": _text_mask_and_nothing,
    "SanaPipeline": _text_and_mask,
    "Lumina2Pipeline": _text_and_mask,
    "AuraFlowPipeline": _text_alone,
    "FluxPipeline": _text_pooled_and_guidance,
}
"""Pipeline class -> its embedding; the others are Stable Diffusion 1's."""


@torch.no_grad()
def embed(kind: str, pipeline: Any, asked: Asked) -> list[Held]:
    """Return the network's keyword arguments for the prompt and, if both are asked for, for the
    negative prompt.

    Parameters
    ----------
    kind : str
        Name of the pipeline's class.
    pipeline
    asked : Asked
    """
    return EMBED.get(kind, _text)(pipeline, asked)[: 2 if asked.both else 1]
