r"""Text-to-image pipelines of diffusers as a denoiser of latents.

    latent = load_latent("folder", prompt="a photo of a seven", guidance=4.0)

The pipeline's network becomes `network(x, t)`: the prompt is embedded once, guidance combines two
of them, what else the network asks for is held fixed, and the time is put in the model's own
convention (`jacobian_lab.diffusion.adapters.conventions`).
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from jacobian_lab import _require
from jacobian_lab.diffusion.adapters.autoencoders import sizes_of
from jacobian_lab.diffusion.adapters.conditions import Conditioned, Held, Packed
from jacobian_lab.diffusion.adapters.conventions import Said, read_convention
from jacobian_lab.diffusion.adapters.image_conditions import with_adapter, with_images
from jacobian_lab.diffusion.adapters.pipelines import TEXT, open_pipeline
from jacobian_lab.diffusion.adapters.prompt_embeddings import Asked, embed
from jacobian_lab.diffusion.adapters.prompts import check_words
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.guidance import guided
from jacobian_lab.diffusion.latent import Latent
from jacobian_lab.diffusion.prediction import Prediction
from jacobian_lab.errors import InputError


def load_latent(
    source: Any,
    *,
    prompt: str = "",
    negative_prompt: str = "",
    guidance: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    download: bool = False,
    prediction: Said | None = None,
    size: tuple[int, int] | None = None,
    embedded_guidance: float = 3.5,
    image: Tensor | None = None,
    mask: Tensor | None = None,
    control_image: Tensor | None = None,
    control_scale: float = 1.0,
    adapter_image: Any = None,
) -> Latent:
    """Return a latent-diffusion model with a prompt: Stable Diffusion, InstaFlow, SDXL, PixArt,
    FLUX, Sana, AuraFlow, Lumina 2.

    Parameters
    ----------
    source : str, Path or pipeline
        A folder in diffusers' format; a hub id, OWNER/NAME; or a pipeline of diffusers that is
        loaded already, with the LoRA and the IP-Adapter that it has. Its networks are put in
        evaluation mode and frozen.
    prompt, negative_prompt : str
        Embedded by the pipeline's own `encode_prompt`. The negative prompt takes the place of the
        empty one in guidance.
    guidance : float
        Scale of classifier-free guidance, `F_negative + guidance (F_prompt - F_negative)`. 1 is
        off: the prompt's network exactly, at half the price, and the negative prompt has no effect.
    device, dtype
        By default the CPU and float32 for a folder or a hub id; a loaded pipeline stays as it is.
        Leave both out for a pipeline with CPU offload, whose hooks place the weights: it keeps
        working, but do not call `denoiser.to()`.
    download : bool
        Whether a hub id may be fetched; otherwise it is looked for in the local cache.
    prediction : {"epsilon", "v", "sample", "flow", "instaflow"}, optional
        Read from the scheduler by default; a value that contradicts the scheduler is refused. Only
        "instaflow" overrides it: a flow whose network predicts `x_0 - noise` at 1000 t. InstaFlow's
        public weights say so by the class of their pipeline, `RectifiedFlowPipeline`, and need no
        argument. Loaded or saved anew as a `StableDiffusionPipeline`, they have a scheduler that
        knows nothing of a flow: then you are asked, if diffusers noted where they came from, and
        otherwise nothing tells.
    size : (int, int), optional
        Height and width of the images in pixels, by default those that the network was trained on.
    embedded_guidance : float
        What a network with a guidance embedding is told (FLUX.1-dev); it costs one network.
    image, mask : Tensor, optional
        For an inpainting network of 9 channels: an image (c, H, W) in [-1, 1], and a mask (1, H, W)
        of bool, True where its pixels are known. Held fixed.
    control_image : Tensor, optional
        For a ControlNet: (c, H, W) in [0, 1]. Held fixed.
    control_scale : float
        diffusers' `controlnet_conditioning_scale`.
    adapter_image : optional
        For a pipeline with an IP-Adapter: its image, or list of images, as diffusers takes
        `ip_adapter_image`. Held fixed.

    Raises
    ------
    InputError
        If the extra `sd` is not installed; the source cannot be found or is of another kind;
        weights are pickled; a file is damaged, as far as checksums are known (a file SHA256SUMS in
        the folder, or the hub's cache); the prediction is unknown or contradicts; the autoencoder
        does not fit the denoiser; the prompt has words that no tokenizer of the pipeline knows;
        there is guidance without any prompt, or away from the prompt itself; or a condition that
        the network needs is missing.

    Warns
    -----
    UserWarning
        If a prompt is cut, since it is longer than a tokenizer reads, or one of several does not
        know a word.

    Notes
    -----
    A reflowed network knows the pairs of noise and data that it was trained on, so D is the mean of
    x_0 over those pairs, not over independent noise; InstaFlow-0.9B, distilled at t = 1, means
    something at t = 1 only.

    References
    ----------
    Rombach et al. (2022), *High-resolution image synthesis with latent diffusion models*. Esser et
    al. (2024), *Scaling rectified flow transformers*. Liu et al. (2024), *InstaFlow*, and its
    public `pipeline_rf.py` for sign and time. For the others, the pipelines of diffusers.
    """
    _check_texts(prompt, negative_prompt, guidance)
    _require.real("embedded_guidance", embedded_guidance)
    if prediction is not None:
        _require.one_of("prediction", prediction, (*get_args(Prediction), "instaflow"))
    opened = open_pipeline(source, device, dtype, download)
    if opened.kind not in TEXT:
        raise InputError(
            f"the source is a {opened.kind}, which has no prompt: expected a text-to-image"
            " pipeline; jacobian_lab.load takes all kinds"
        )
    check_words(opened, "prompt", prompt)
    if guidance != 1:
        check_words(opened, "negative prompt", negative_prompt)
    convention, pipeline = read_convention(opened, prediction), opened.pipeline
    sizes = sizes_of(opened, size)
    asked = Asked(prompt, negative_prompt, guidance != 1, sizes.image[1:], embedded_guidance)
    held: list[Held] = embed(opened.kind, pipeline, asked)
    held = with_adapter(pipeline, opened.network, held, adapter_image)
    network = with_images(opened, sizes, image, mask, control_image, control_scale)
    network = Packed(network) if sizes.packed else network
    conditioned = [Conditioned(network, condition, convention) for condition in held]
    denoiser = Denoiser(
        guided(conditioned[0], conditioned[-1], guidance),
        convention.schedule,
        convention.prediction,
        sizes.latent,
        learned_variance=sizes.learned_variance,
    )
    return Latent(pipeline, denoiser.eval(), sizes.factor)


def _check_texts(prompt: str, negative_prompt: str, guidance: float) -> None:
    """Raise unless these are texts, and guidance has two to guide between."""
    for option, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if not isinstance(text, str):
            raise InputError(f"{option} must be one string: got {text!r}")
    guidance = _require.real("guidance", guidance)
    if guidance != 1 and prompt.strip() == negative_prompt.strip():
        why = "and the negative prompt is the prompt" if prompt.strip() else "without a prompt"
        raise InputError(
            f"guidance is {guidance} {why}, so that it has no effect: give a prompt, or leave it"
            " at 1"
        )
