"""Cases of diffusers; see `adapter_cases`."""

import torch

from jacobian_lab import load

from adapter_cases import case

NEEDS = ("diffusers", "transformers")


def unet(out=3, **options):
    import diffusers

    return diffusers.UNet2DModel(
        **{
            "sample_size": 8,
            "in_channels": 3,
            "out_channels": out,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            **options,
        }
    )


def in_double(scheduler):
    """A scheduler whose table is in float64: its step would round the table's roots to float32."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    return scheduler


def stepped(network, scheduler, channels):
    """x_0 by the scheduler's own step."""

    def formula(x, t):
        raw = network(x, t)[:, :channels]
        return scheduler.step(raw, t, x).pred_original_sample

    return formula


def pixel_pipeline(pipeline, scheduler, dtype, label=None, **options):
    """A pipeline of pixels, and x_0 by its scheduler's step."""
    import diffusers

    network = unet(**options).to(dtype)
    made = load(getattr(diffusers, pipeline)(network, in_double(scheduler)), label=label)
    labels = None if label is None else torch.full((2,), label)
    return made, stepped(lambda x, t: network(x, t, labels).sample, scheduler, 3)


@case("pixels", "DDPM, epsilon", needs=NEEDS)
def ddpm(dtype):
    import diffusers

    return pixel_pipeline("DDPMPipeline", diffusers.DDPMScheduler(clip_sample=False), dtype)


@case("pixels", "DDPM, learned variance, class", t=300, needs=NEEDS)
def ddpm_learned(dtype):
    import diffusers

    scheduler = diffusers.DDPMScheduler(
        variance_type="learned_range", clip_sample=False, beta_schedule="squaredcos_cap_v2"
    )

    network = unet(out=6, num_class_embeds=5).to(dtype)
    scheduler = in_double(scheduler)
    labels = torch.full((2,), 3)

    def formula(x, t):
        return scheduler.step(network(x, t, labels).sample, t, x).pred_original_sample

    return load(diffusers.DDPMPipeline(network, scheduler), label=3), formula


@case("pixels", "DDIM, v", t=700, needs=NEEDS)
def ddim(dtype):
    import diffusers

    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    network = unet().to(dtype)
    scheduler = in_double(scheduler)
    scheduler.set_timesteps(1000)
    return load(diffusers.DDIMPipeline(network, scheduler)), stepped(
        lambda x, t: network(x, t).sample, scheduler, 3
    )


@case("pixels", "UNet2DModel with a DDIM scheduler, sample", t=200, needs=NEEDS)
def pair(dtype):
    import diffusers

    scheduler = in_double(diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False))
    scheduler.set_timesteps(1000)
    network = unet().to(dtype)
    return load((network, scheduler)), stepped(lambda x, t: network(x, t).sample, scheduler, 3)


@case("pixels", "score-SDE VE", t=3.0, scale=3.0, needs=NEEDS)
def score_sde(dtype):
    """Tweedie: x + sigma^2 score, of pixels in [0, 1]."""
    import diffusers

    network = unet(time_embedding_type="fourier").to(dtype)

    def formula(x, t):
        unit, sigma = (x + 1) / 2, t / 2
        score = network(unit, torch.full((2,), sigma, dtype=dtype)).sample
        return 2 * (unit + sigma**2 * score) - 1

    pipeline = diffusers.ScoreSdeVePipeline(network, diffusers.ScoreSdeVeScheduler())
    return load(pipeline), formula


@case("pixels", "consistency model", t=1.5, scale=1.5, needs=NEEDS)
def consistency(dtype):
    import diffusers

    network = unet().to(dtype)
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)

    def formula(x, t):
        sigma = torch.tensor(t, dtype=torch.float64)
        skip, out = scheduler.get_scalings_for_boundary_condition(sigma)
        time = torch.from_numpy(scheduler.sigma_to_t(sigma.numpy().reshape(1)))
        scaled = x / ((sigma**2 + scheduler.config.sigma_data**2) ** 0.5).to(dtype)
        return out.to(dtype) * network(scaled, time).sample + skip.to(dtype) * x

    return load(diffusers.ConsistencyModelPipeline(network, scheduler)), formula


@case("pixels", "UNet2DModel with an EDM scheduler", t=2.0, scale=2.0, needs=NEEDS)
def edm_pair(dtype):
    import diffusers

    network, scheduler = unet().to(dtype), diffusers.EDMEulerScheduler()

    def formula(x, t):
        sigma = torch.tensor(t, dtype=torch.float64)
        given = scheduler.precondition_inputs(x, sigma.to(dtype))
        raw = network(given, scheduler.precondition_noise(sigma)).sample
        return scheduler.precondition_outputs(x, raw, sigma.to(dtype))

    return load((network, scheduler)), formula


@case("pixels", "UNet2DModel with a flow scheduler", t=0.4, needs=NEEDS)
def flow_pair(dtype):
    """One Euler step to sigma = 0."""
    import diffusers

    network, scheduler = unet().to(dtype), diffusers.FlowMatchEulerDiscreteScheduler()

    def formula(x, t):
        return x + (0 - t) * network(x, torch.full((2,), 1000 * t, dtype=dtype)).sample

    return load((network, scheduler)), formula
