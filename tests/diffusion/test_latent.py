"""Stable Diffusion's kin as denoisers: against diffusers' own samplers, InstaFlow's published rule,
and a Gaussian oracle.
"""

from itertools import pairwise

import pytest
import torch
from torch import nn

from jacobian_lab import InputError, JacobianOperator, audit, load, load_latent

from conftest import relative

diffusers = pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
import pipelines  # noqa: E402 - needs what was asked for above
from adapter_cases_text import sdxl_pipeline  # noqa: E402

PROMPTS = {"prompt": "a cat", "negative_prompt": "dog"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder for each configuration, as diffusers saves it."""
    return pipelines.saved(tmp_path_factory.mktemp("pipelines"))


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_the_posterior_mean_reproduces_diffusers_ddim(folders, name):
    latent = load_latent(folders[name], **PROMPTS, guidance=3.0)
    pipeline, x = latent.pipeline, pipelines.noise(latent)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(
        pipeline.scheduler.config, clip_sample=False
    )
    theirs = pipeline(
        **PROMPTS, guidance_scale=3.0, num_inference_steps=3, latents=x, output_type="latent"
    ).images
    table, stride = pipeline.scheduler.alphas_cumprod, 1000 // 3
    for t in pipeline.scheduler.timesteps.tolist():
        x0 = latent.denoiser(x, t)
        alpha_bar = table[max(t - stride, 0)]
        x = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * latent.denoiser.noise(x, x0, t)
    assert relative(x, theirs) < 1e-5


def test_the_posterior_mean_reproduces_diffusers_flow_whose_shift_moves_only_the_times(folders):
    latent = load_latent(folders["sd3"], **PROMPTS, guidance=3.0)
    x, pipeline = pipelines.noise(latent), latent.pipeline
    assert pipeline.scheduler.config.shift == 3
    theirs = pipeline(
        **PROMPTS, guidance_scale=3.0, num_inference_steps=3, latents=x, output_type="latent"
    ).images
    sigmas = pipeline.scheduler.sigmas.tolist()
    assert sigmas[1] == pytest.approx(0.75, abs=0.01)  # shifted from 0.5
    for t, following in pairwise(sigmas):
        x = x + (following - t) * (x - latent.denoiser(x, t)) / t
    assert relative(x, theirs) < 1e-5


def test_the_posterior_mean_reproduces_instaflows_published_rule(folders):
    latent = load_latent(folders["instaflow"], **PROMPTS, guidance=1.5)
    theirs = ours = pipelines.noise(latent)
    steps, unet = 4, latent.pipeline.unet
    with torch.no_grad():
        embeddings = latent.pipeline.encode_prompt("a cat", "cpu", 1, True, "dog")
        for i in range(steps):  # pipeline_rf.py: the index falls from 1000, x <- x + dt v
            index = torch.full((1,), (1 - i / steps) * 1000)
            text, negative = (
                unet(theirs, index, encoder_hidden_states=e).sample for e in embeddings
            )
            theirs = theirs + (negative + 1.5 * (text - negative)) / steps
            t = 1 - i / steps
            ours = ours - (ours - latent.denoiser(ours, t)) / t / steps
    assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("name", "t"),
    [
        ("sd1", 500),
        pytest.param("sd3", 0.5, marks=pytest.mark.slow),
        pytest.param("instaflow", 0.5, marks=pytest.mark.slow),
    ],
)
def test_the_audit_passes_with_exact_products(folders, name, t):
    latent = load_latent(folders[name], **PROMPTS, guidance=3.0)
    J = JacobianOperator(latent.denoiser, pipelines.noise(latent), t)
    assert J.products.path == "linearised"
    assert audit(J)


@pytest.mark.parametrize(("name", "t"), [("sd1", 500), ("sd3", 0.5)])
def test_the_embeddings_are_diffusers_own_and_guidance_combines_them(folders, name, t):
    load = {g: load_latent(folders[name], **PROMPTS, guidance=g) for g in (0.0, 1.0, 4.0)}
    pipeline, x = load[1.0].pipeline, pipelines.noise(load[1.0], 2)
    with torch.no_grad():
        if name == "sd1":
            network, time = pipeline.unet, torch.full((2,), t)
            embeddings = [
                {"encoder_hidden_states": e}
                for e in pipeline.encode_prompt("a cat", "cpu", 1, True, "dog")
            ]
        else:
            network, time = pipeline.transformer, torch.full((2,), 1000 * t)
            e, ne, p, np = pipeline.encode_prompt("a cat", None, None, negative_prompt="dog")
            embeddings = [
                {"encoder_hidden_states": e, "pooled_projections": p},
                {"encoder_hidden_states": ne, "pooled_projections": np},
            ]
        conditioned = (
            load[4.0].denoiser.network.conditional,
            load[4.0].denoiser.network.unconditional,
        )
        for ours, theirs in zip(conditioned, embeddings, strict=True):
            assert all(torch.equal(getattr(ours, key), value) for key, value in theirs.items())
        text, negative = (
            network(
                x, timestep=time, **{k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in e.items()}
            ).sample
            for e in embeddings
        )
        raw = {g: latent.denoiser.network(x, torch.full((2,), t)) for g, latent in load.items()}
    assert torch.equal(raw[1.0], text)  # the conditional network exactly
    assert relative(raw[0.0], negative) < 1e-6
    assert relative(raw[4.0] - negative, 4 * (text - negative)) < 1e-4
    assert relative(text, negative) > 1e-2


def test_the_negative_prompt_takes_the_place_of_the_empty_one(folders):
    empty, same, dog = (
        load_latent(folders["sd1"], prompt="a cat", negative_prompt=word, guidance=3.0).denoiser
        # of the tokens of the prompt; the prompt itself is refused
        for word in ("", "a  cat", "dog")
    )
    alone = load_latent(folders["sd1"], prompt="a cat", negative_prompt="dog").denoiser
    x = torch.randn(1, *dog.shape, generator=torch.Generator().manual_seed(0))
    assert relative(same(x, 500), alone(x, 500)) < 1e-5
    assert relative(dog(x, 500), empty(x, 500)) > 1e-3
    assert relative(dog(x, 500), alone(x, 500)) > 1e-3


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_the_autoencoder_is_shifted_scaled_differentiable_and_per_sample(folders, name):
    latent = load_latent(folders[name])
    vae, config = latent.pipeline.vae, latent.pipeline.vae.config
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images.requires_grad_()
    z = latent.encode(images)
    assert latent.image_shape == (3, 64, 64)
    assert latent.factor == 8
    assert z.shape[1:] == latent.denoiser.shape == (4 if name == "sd1" else 16, 8, 8)
    mean = vae.encode(images).latent_dist.mean
    assert relative(z, (mean - (config.shift_factor or 0)) * config.scaling_factor) < 1e-6
    decoded = latent.decode(z)
    assert relative(decoded, vae.decode(mean).sample) < 1e-4
    assert relative(latent.encode(images[1:]), z[1:]) < 1e-5
    assert relative(latent.decode(z[1:]), decoded[1:]) < 1e-5
    (gradient,) = torch.autograd.grad(decoded[0].square().sum(), images)
    assert gradient[0].any()
    assert not gradient[1].any()
    with torch.no_grad():
        assert not latent.decode(latent.encode(images)).requires_grad
    with pytest.raises(
        InputError, match=r"images have shape \(3, 64, 64\): expected \(B, 3, 64, 64\)"
    ):
        latent.encode(images[0])
    with pytest.raises(InputError, match="latents have shape"):
        latent.decode(z[:, :, 1:])


def test_networks_are_frozen_in_evaluation_mode_and_the_schedule_is_the_schedulers_own():
    pipeline = pipelines.stable_diffusion()
    assert pipeline.unet.training  # as made, not as loaded
    pipeline.scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=50, beta_schedule="squaredcos_cap_v2"
    )
    latent = load_latent(pipeline)
    assert latent.pipeline is pipeline
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    assert not any(
        module.training for part in (latent.denoiser, *modules) for module in part.modules()
    )
    assert not any(parameter.requires_grad for part in modules for parameter in part.parameters())
    assert torch.equal(
        latent.denoiser.schedule.alphas_cumprod.float(), pipeline.scheduler.alphas_cumprod
    )
    assert latent.denoiser.schedule.steps == 50


def test_precision_is_explicit_and_a_loaded_pipeline_stays_as_it_is(folders):
    latent = load_latent(folders["sd1"], dtype=torch.bfloat16)
    assert {p.dtype for p in latent.pipeline.unet.parameters()} == {torch.bfloat16}
    x = pipelines.noise(latent)
    coarse = latent.denoiser(x.bfloat16(), 500)
    assert coarse.dtype == torch.bfloat16
    assert load_latent(latent.pipeline).pipeline.unet.dtype == torch.bfloat16
    assert relative(coarse.float(), load_latent(folders["sd1"]).denoiser(x, 500)) < 0.05


def test_half_precision_does_not_round_the_time_of_a_flow(folders):
    latent, seen = load_latent(folders["sd3"], dtype=torch.bfloat16), []
    latent.pipeline.transformer.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["timestep"]), with_kwargs=True
    )
    assert latent.denoiser(pipelines.noise(latent).bfloat16(), 0.4993).dtype == torch.bfloat16
    assert float(seen[0]) == pytest.approx(499.3, abs=1e-3)


def test_an_offloaded_pipeline_keeps_working(folders):
    accelerate = pytest.importorskip("accelerate")
    plain = load_latent(folders["sd1"], **PROMPTS, guidance=3.0)
    x, v = pipelines.noise(plain), pipelines.noise(plain, seed=1).flatten().double().numpy()
    expected = plain.denoiser(x, 500), JacobianOperator(plain.denoiser, x, 500) @ v, plain.decode(x)
    for part in (plain.pipeline.unet, plain.pipeline.vae, plain.pipeline.text_encoder):
        accelerate.cpu_offload(part, execution_device="cpu")
    assert next(plain.pipeline.unet.parameters()).is_meta  # the weights are elsewhere
    latent = load_latent(plain.pipeline, **PROMPTS, guidance=3.0)
    assert torch.equal(latent.denoiser(x, 500), expected[0])
    J = JacobianOperator(latent.denoiser, x, 500)
    assert relative(J @ v, expected[1]) < 1e-6
    assert torch.equal(latent.decode(x), expected[2])
    with pytest.raises(InputError, match="offloaded"):
        load_latent(plain.pipeline, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prediction": "v"},
            r"prediction='v', but the scheduler \(PNDMScheduler\) says 'epsilon'",
        ),
        (
            {"prediction": "velocity"},
            "unknown prediction 'velocity': expected one of epsilon, v, sample, flow, score, inst",
        ),
        ({"guidance": float("nan")}, "guidance must be finite"),
        ({"prompt": ["a", "b"]}, "prompt must be one string"),
        ({"dtype": torch.int64}, "dtype must be a floating-point type"),
        ({"device": "nowhere"}, "the device 'nowhere' cannot be used"),
    ],
)
def test_a_bad_option_is_told_clearly(folders, options, message):
    with pytest.raises(InputError, match=message):
        load_latent(folders["sd1"], **options)


def test_an_autoencoder_that_overflows_in_half_precision_computes_in_float32():
    """As in diffusers' pipeline: Stable Diffusion XL's does."""
    pipeline = sdxl_pipeline()
    with torch.no_grad():
        pipeline.vae.decoder.conv_in.weight.mul_(3e5)  # activations beyond 65504
        latent = load(pipeline.to(dtype=torch.float16), prompt="a cat")
        images = latent.decode(torch.randn(1, *latent.denoiser.shape).half())
        assert images.dtype == torch.float16
        assert pipeline.vae.dtype == torch.float16  # the pipeline's own stays as it is
        assert images.isfinite().all()
        assert latent.encode(images.clamp(-1, 1)).dtype == torch.float16
