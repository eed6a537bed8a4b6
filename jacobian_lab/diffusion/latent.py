r"""Stable Diffusion and kin as a denoiser of latents: what the rest of the library needs, and no
more.

    latent = load_latent("folder", prompt="a photo of a seven", guidance=4.0)
    z = latent.encode(images)
    x_t = latent.denoiser.schedule.add_noise(z, 500, noise)
    images = latent.decode(latent.denoiser(x_t, 500))

The pipeline's network becomes `network(x, t)`: the prompt is embedded once, guidance combines two
of them, and the time is put in the model's own convention
(`jacobian_lab.diffusion.conventions`).
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.conventions import Convention, Said, read_convention
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.guidance import guided
from jacobian_lab.diffusion.pipelines import NETWORKS, Opened, open_pipeline
from jacobian_lab.diffusion.prediction import Prediction
from jacobian_lab.diffusion.prompts import check_words
from jacobian_lab.errors import InputError


class Latent:
    """A latent-diffusion model: the denoiser of its latents, and the autoencoder. Made by
    `load_latent`.

    Parameters
    ----------
    pipeline
        A diffusers object with an `AutoencoderKL`, `vae`.
    denoiser : Denoiser
        The denoiser of its latents, (C, h, w).
    factor : int
        Pixels per latent pixel, in each direction.

    Attributes
    ----------
    denoiser : Denoiser
        In latent space, `denoiser.shape` is (C, h, w).
    image_shape : (int, int, int)
        Shape (c, H, W) of an image; pixels are in [-1, 1].
    factor : int
        Pixels per latent pixel, in each direction.
    pipeline
        The diffusers object.
    """

    def __init__(self, pipeline: Any, denoiser: Denoiser, factor: int) -> None:
        self.pipeline, self.denoiser, self.factor = pipeline, denoiser, factor
        config = pipeline.vae.config
        self._scale, self._shift = (
            float(config.scaling_factor),
            float(config.get("shift_factor") or 0.0),
        )
        _, h, w = denoiser.shape
        self.image_shape = (int(config.in_channels), h * factor, w * factor)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of images: (B, c, H, W) in [-1, 1] -> (B, C, h, w).

        The mode of the encoder's Gaussian, shifted and scaled as the denoiser wants it;
        differentiable. The images must be on the model's device and in its dtype.
        """
        _check_batch(images, self.image_shape, "images")
        return (self.pipeline.vae.encode(images).latent_dist.mode() - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents: (B, C, h, w) -> (B, c, H, W), not clamped to [-1, 1];
        differentiable.
        """
        _check_batch(latents, self.denoiser.shape, "latents")
        images: Tensor = self.pipeline.vae.decode(
            latents / self._scale + self._shift, return_dict=False
        )[0]
        return images


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
) -> Latent:
    """Return a latent-diffusion model with a prompt: Stable Diffusion 1.x, 2.x, 3, InstaFlow.

    Parameters
    ----------
    source : str, Path or pipeline
        A folder in diffusers' format; a hub id, OWNER/NAME; or a `StableDiffusionPipeline`,
        `StableDiffusion3Pipeline` or InstaFlow's `RectifiedFlowPipeline` that is loaded already.
        Its networks are put in evaluation mode and frozen.
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

    Raises
    ------
    InputError
        If the extra `sd` is not installed; the source cannot be found or is of another kind;
        weights are pickled; a file is damaged, as far as checksums are known (a file SHA256SUMS in
        the folder, or the hub's cache); the prediction is unknown or contradicts; the autoencoder
        does not fit the denoiser; the prompt has words that no tokenizer of the pipeline knows; or
        there is guidance without any prompt, or away from the prompt itself.

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
    public `pipeline_rf.py` for sign and time.
    """
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
    if prediction is not None:
        _require.one_of("prediction", prediction, (*get_args(Prediction), "instaflow"))
    opened = open_pipeline(source, device, dtype, download)
    check_words(opened, "prompt", prompt)
    if guidance != 1:
        check_words(opened, "negative prompt", negative_prompt)
    convention = read_convention(opened, prediction)
    shape, factor = _sizes(opened.pipeline.vae, opened.network)
    embeddings = _embed(opened, prompt, negative_prompt, guidance != 1)
    conditioned = [Conditioned(opened.network, embedding, convention) for embedding in embeddings]
    denoiser = Denoiser(
        guided(conditioned[0], conditioned[-1], guidance),
        convention.schedule,
        convention.prediction,
        shape,
    )
    return Latent(opened.pipeline, denoiser.eval(), factor)


class Conditioned(nn.Module):
    """A pipeline's network with one prompt, in our convention: `(x, t) -> raw output`.

    Parameters
    ----------
    network : nn.Module
        The pipeline's own, called with diffusers' keyword arguments.
    embedding : dict
        Keyword arguments that carry the prompt, each of shape (1, ...); they become buffers.
    convention : Convention
        What the network predicts, and at which time.
    """

    def __init__(
        self, network: nn.Module, embedding: dict[str, Tensor], convention: Convention
    ) -> None:
        super().__init__()
        self.network, self.names = network, tuple(embedding)
        self.time_scale, self.sign = convention.time_scale, convention.sign
        for name, value in embedding.items():
            self.register_buffer(name, value)
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output, shape of `x`; t has the shape (B,)."""
        embedding = {
            name: getattr(self, name).expand(len(x), *[-1] * (getattr(self, name).ndim - 1))
            for name in self.names
        }
        raw = self.network(x, timestep=t * self.time_scale, return_dict=False, **embedding)[0]
        return raw if self.sign == 1 else -raw


@torch.no_grad()
def _embed(
    opened: Opened, prompt: str, negative_prompt: str, both: bool
) -> list[dict[str, Tensor]]:
    """Return the network's keyword arguments for the prompt and, if asked for both, for the
    negative prompt.
    """
    pipeline = opened.pipeline
    options = {
        "device": pipeline._execution_device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": both,
        "negative_prompt": negative_prompt if both else None,
    }
    if NETWORKS[opened.kind] == "unet":
        embeddings = [
            {"encoder_hidden_states": e} for e in pipeline.encode_prompt(prompt, **options)
        ]
    else:
        positive, negative, pooled, negative_pooled = pipeline.encode_prompt(
            prompt, None, None, **options
        )
        embeddings = [
            {"encoder_hidden_states": e, "pooled_projections": p}
            for e, p in ((positive, pooled), (negative, negative_pooled))
        ]
    return embeddings if both else embeddings[:1]


def _sizes(vae: Any, network: Any) -> tuple[tuple[int, int, int], int]:
    """Return the shape of a latent and the pixels per latent pixel.

    Raises
    ------
    InputError
        If the autoencoder is not of Stable Diffusion's kind, or the network does not denoise its
        latents.
    """
    if "AutoencoderKL" not in (c.__name__ for c in type(vae).__mro__):
        raise InputError(f"the vae is a {type(vae).__name__}: expected an AutoencoderKL")
    config, channels = network.config, int(vae.config.latent_channels)
    for name in (
        "class_embed_type",
        "num_class_embeds",
        "addition_embed_type",
        "time_cond_proj_dim",
    ):
        if config.get(name) is not None:
            raise InputError(
                f"the network has {name} = {config[name]!r}, a condition beside the prompt:"
                " expected a plain text-to-image model"
            )
    for name in ("in_channels", "out_channels"):
        if config[name] != channels:
            raise InputError(
                f"the network's {name} is {config[name]}, but the vae's latents have {channels}"
                " channels: they are not of one pipeline, or the network takes more than the"
                " latent (inpainting, depth)"
            )
    size = config.sample_size
    h, w = (size, size) if isinstance(size, int) else size
    return (channels, int(h), int(w)), 2 ** (len(vae.config.block_out_channels) - 1)


def _check_batch(x: Tensor, shape: tuple[int, ...], name: str) -> None:
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        raise InputError(
            f"{name} have shape {tuple(x.shape)}: expected (B, {', '.join(map(str, shape))})"
        )
