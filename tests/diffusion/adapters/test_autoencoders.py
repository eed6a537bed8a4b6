"""Sizes of latents and images, and whether autoencoder and network fit."""

import pytest
import torch

from jacobian_lab import InputError, load

from adapter_cases_images import small_unet
from adapter_cases_text import flux_pipeline, sdxl_pipeline
from conftest import relative

pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
import pipelines


@pytest.mark.parametrize(
    ("size", "latent", "image"),
    [(None, (4, 8, 8), (3, 64, 64)), ((32, 128), (4, 4, 16), (3, 32, 128))],
)
def test_a_size_in_pixels_is_that_of_the_latent_times_the_factor(size, latent, image):
    model = load(pipelines.stable_diffusion(), size=size)
    assert (model.denoiser.shape, model.image_shape, model.factor) == (latent, image, 8)
    z = model.encode(torch.zeros(1, *image))
    assert z.shape == (1, *latent)
    assert model.decode(z).shape == (1, *image)


def test_a_mean_and_a_spread_for_each_channel_are_those_of_sdxls_pipeline():
    pipeline = sdxl_pipeline()
    pipeline.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[2, 1, 3, 4])
    pipeline.set_progress_bar_config(disable=True)
    model, x = load(pipeline), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        call = {"num_inference_steps": 1, "latents": x, "guidance_scale": 1.0}
        latent = pipeline("", **call, output_type="latent").images
        theirs = pipeline("", **call, output_type="pt").images * 2 - 1
        ours = model.decode(latent)
        assert relative(ours.clamp(-1, 1), theirs) < 1e-5
        images = torch.rand(1, 3, 64, 64)
        mode = pipeline.vae.encode(images).latent_dist.mode()
    spread = torch.tensor([2.0, 1, 3, 4]).reshape(4, 1, 1) / 0.18215
    mean = torch.tensor([0.1, -0.2, 0.3, 0.0]).reshape(4, 1, 1)
    assert relative(model.encode(images) * spread + mean, mode) < 1e-5


def test_flux_is_of_1024_pixels_unless_it_is_told():
    assert load(flux_pipeline(False)).image_shape == (3, 1024, 1024)


def test_the_size_is_told_to_sdxl():
    """Its time ids are the image's size: with another, D differs."""
    pipeline, x = sdxl_pipeline(), torch.randn(1, 4, 8, 8)
    told = load(pipeline).denoiser
    assert told.network.get_buffer("added_cond_kwargs/time_ids").tolist() == [
        [64, 64, 0, 0, 64, 64]
    ]
    told.network.get_buffer("added_cond_kwargs/time_ids")[:] = 1024
    assert relative(told(x, 500), load(pipeline).denoiser(x, 500)) > 1e-5


@pytest.mark.parametrize("size", [(60, 64), (0, 64), (64,), (64, 64, 3)])
def test_a_size_that_does_not_fit_is_told(size):
    with pytest.raises(InputError, match="size must be"):
        load(pipelines.stable_diffusion(), size=size)


def test_more_channels_than_the_latent_are_told():
    pipeline = pipelines.stable_diffusion()
    pipeline.unet = small_unet(8)
    with pytest.raises(InputError, match="in_channels is 8, but the vae's latents have 4"):
        load(pipeline)
