"""Cases of other libraries, and stand-ins of the same public attributes, which are tested where a
library is not installed; see `adapter_cases`.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab import DiscreteSchedule, load

from adapter_cases import case


class Net(nn.Module):
    """Convolutions, a time, a class: `network(x, t, label)`."""

    def __init__(self, channels=3, out=None, classes=0, rows=0):
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.last = nn.Conv2d(8, out or channels, 3, padding=1)
        self.time = nn.Linear(2, 8)
        self.table = nn.Embedding(classes + 1, 8) if classes else None
        self.row = nn.Linear(rows, 8) if rows else None

    def forward(self, x, t, label=None):
        phase = 0.05 * t.to(x)
        h = self.time(torch.stack([phase.sin(), phase.cos()], dim=1))
        if self.table is not None:
            h = h + self.table(label)
        if self.row is not None:
            h = h + self.row(label.to(x))
        return self.last(F.silu(self.first(x) + h[:, :, None, None]))


def per(value, x):
    """A number for each sample, shaped to multiply x."""
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


def full(t, x):
    return torch.full((len(x),), t, dtype=torch.float64)


# EDM


class EDMPrecond(nn.Module):
    """A stand-in of NVlabs' class: its public attributes, and table 1 of Karras et al. (2022)."""

    def __init__(self, rows=0, inner="model"):
        super().__init__()
        self.img_resolution, self.img_channels, self.label_dim = 8, 3, rows
        self.sigma_min, self.sigma_max, self.sigma_data = 0, math.inf, 0.4
        net = Net(rows=rows)
        net.forward = self.called_as_theirs(net.forward)
        self.inner = inner
        setattr(self, inner, net)

    @staticmethod
    def called_as_theirs(forward):
        return lambda x, noise_labels, class_labels: forward(x, noise_labels, class_labels)

    def forward(self, x, sigma, class_labels=None):
        s, d = per(sigma, x), self.sigma_data
        if self.label_dim and class_labels is None:
            class_labels = torch.zeros(1, self.label_dim).to(x)
        raw = getattr(self, self.inner)(
            x / (s**2 + d**2).sqrt(), sigma.log() / 4, class_labels=class_labels
        )
        return d**2 / (s**2 + d**2) * x + s * d / (s**2 + d**2).sqrt() * raw


@case("edm", "EDMPrecond (stand-in)", t=1.5, scale=1.5)
def edm(dtype):
    precond = EDMPrecond().to(dtype)
    return load(precond), lambda x, t: precond(x, full(t, x))


@case("edm", "EDMPrecond with a class (stand-in)", t=0.7)
def edm_class(dtype):
    precond = EDMPrecond(rows=5).to(dtype)
    row = F.one_hot(torch.tensor([3, 3]), 5).to(dtype)
    return load(precond, label=3), lambda x, t: precond(x, full(t, x), row)


@case("edm", "EDM2's Precond, without its class (stand-in)", t=20.0, scale=20.0)
def edm2(dtype):
    precond = EDMPrecond(rows=5, inner="unet").to(dtype)
    return load(precond), lambda x, t: precond(x, full(t, x))


class VPPrecond(nn.Module):
    """A stand-in: `x - sigma F(x / sqrt(sigma^2 + 1), c_noise)`."""

    img_resolution, img_channels, label_dim = 8, 3, 0
    sigma_min, sigma_max = 0.006, 150.0

    def __init__(self):
        super().__init__()
        self.model = Net()

    def forward(self, x, sigma, class_labels=None):
        s = per(sigma, x)
        noise = 999 * ((0.01 + 39.8 * (1 + sigma**2).log()).sqrt() - 0.1) / 19.9
        return x - s * self.model(x / (s**2 + 1).sqrt(), noise)


@case("edm", "VPPrecond, taken whole (stand-in)", t=1.5, scale=1.5)
def vp_precond(dtype):
    precond = VPPrecond().to(dtype)
    return load(precond), lambda x, t: precond(x, full(t, x))


@case("edm", "ElucidatedDiffusion", t=1.5, scale=1.5, needs="denoising_diffusion_pytorch")
def elucidated(dtype):
    from denoising_diffusion_pytorch import ElucidatedDiffusion, Unet

    net = Unet(8, dim_mults=(1, 2), learned_sinusoidal_cond=True, attn_dim_head=8)
    diffusion = ElucidatedDiffusion(net, image_size=8).to(dtype).eval()
    return load(diffusion), lambda x, t: diffusion.preconditioned_network_forward(
        x, full(t, x).to(dtype)
    )


# k-diffusion


class Wrapper(nn.Module):
    """A stand-in of k-diffusion's `layers.Denoiser`."""

    def __init__(self, inner_model, sigma_data=0.5):
        super().__init__()
        self.inner_model, self.sigma_data = inner_model, sigma_data

    def get_scalings(self, sigma):
        power = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / power, sigma * self.sigma_data / power.sqrt(), power.rsqrt()

    def forward(self, x, sigma):
        skip, out, given = (per(c, x) for c in self.get_scalings(sigma))
        return self.inner_model(x * given, sigma) * out + x * skip


Wrapper.__name__ = "Denoiser"


@case("k_diffusion", "layers.Denoiser (stand-in)", t=1.5, scale=1.5)
def k_stand_in(dtype):
    wrapper = Wrapper(Net()).to(dtype)
    return load(wrapper, shape=(3, 8, 8)), lambda x, t: wrapper(x, full(t, x))


@case("k_diffusion", "layers.Denoiser", t=1.5, scale=1.5, needs="k_diffusion.layers")
def k_layers(dtype):
    from k_diffusion.layers import Denoiser

    wrapper = Denoiser(Net(), sigma_data=0.5).to(dtype)
    return load(wrapper, shape=(3, 8, 8)), lambda x, t: wrapper(x, full(t, x).to(dtype))


@case("k_diffusion", "DiscreteEpsDDPMDenoiser", t=1.5, scale=1.5, needs="k_diffusion.external")
def k_eps(dtype):
    from k_diffusion.external import DiscreteEpsDDPMDenoiser

    table = DiscreteSchedule.linear().alphas_cumprod
    wrapper = DiscreteEpsDDPMDenoiser(Net(), table, quantize=False).to(dtype)
    return load(wrapper, shape=(3, 8, 8)), lambda x, t: wrapper(x, full(t, x).to(dtype))


@case("k_diffusion", "VDenoiser", t=1.5, scale=1.5, needs="k_diffusion.external")
def k_v(dtype):
    from k_diffusion.external import VDenoiser

    wrapper = VDenoiser(Net()).to(dtype)
    return load(wrapper, shape=(3, 8, 8)), lambda x, t: wrapper(x, full(t, x).to(dtype))


# guided-diffusion


class UNetModel(Net):
    """A stand-in of guided-diffusion's class: `network(x, timesteps, y)`."""

    image_size, in_channels, out_channels, num_classes = 8, 3, 6, 5

    def __init__(self):
        super().__init__(3, 6, classes=5)

    def forward(self, x, timesteps, y=None):
        return super().forward(x, timesteps, y)


def x0_of_noise(x, noise, alpha_bar):
    """Ho et al. (2020), eq. 15."""
    return (x - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5


@case("guided_diffusion", "UNetModel, learned variance, class (stand-in)", t=600)
def guided_alone(dtype):
    model, schedule = UNetModel().to(dtype), DiscreteSchedule.cosine()
    alpha_bar = float(schedule.alphas_cumprod[600])
    y = torch.tensor([2, 2])
    return load(model, label=2, schedule=schedule), lambda x, t: x0_of_noise(
        x, model(x, torch.tensor([t, t]), y)[:, :3], alpha_bar
    )


class Spaced:
    """A stand-in of `SpacedDiffusion`: 10 of 1000 times."""

    timestep_map = tuple(range(50, 1000, 100))
    model_mean_type, rescale_timesteps, original_num_steps = "START_X", True, 4000
    alphas_cumprod = DiscreteSchedule.linear().alphas_cumprod[50::100].numpy()


@case("guided_diffusion", "UNetModel with a respaced diffusion (stand-in)", t=4)
def guided_spaced(dtype):
    model = UNetModel().to(dtype)
    y = torch.tensor([2, 2])

    def formula(x, t):
        return model(x, torch.tensor([450.0, 450.0]) * (1000 / 4000), y)[:, :3]

    return load((model, Spaced()), label=2), formula


# denoising-diffusion-pytorch


class GaussianDiffusion(nn.Module):
    """A stand-in: the public attributes."""

    def __init__(self, objective):
        super().__init__()
        self.model, self.objective = Net(), objective
        self.channels, self.image_size = 3, (8, 8)
        self.register_buffer("alphas_cumprod", DiscreteSchedule.cosine().alphas_cumprod.float())


@case("denoising_diffusion", "GaussianDiffusion, pred_v (stand-in)", t=300)
def ddp_stand_in(dtype):
    """Salimans, Ho (2022), appendix D: x_0 = alpha x - sigma v."""
    diffusion = GaussianDiffusion("pred_v").to(dtype)
    alpha_bar = float(diffusion.alphas_cumprod[300])
    return (
        load(diffusion),
        lambda x, t: (
            alpha_bar**0.5 * x - (1 - alpha_bar) ** 0.5 * diffusion.model(x, torch.tensor([t, t]))
        ),
    )


def cast_times(embedding):
    """Let a time embedding, which is made in float32, meet weights in float64."""
    for module in embedding.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(
                lambda linear, given: tuple(of.to(linear.weight.dtype) for of in given)
            )


def in_double(diffusion):
    """The library keeps each table rounded to float32: the same ones, of one table, in float64."""
    cast_times(diffusion.model.time_mlp)
    alpha_bar = diffusion.alphas_cumprod.double()
    diffusion.double()
    diffusion.sqrt_alphas_cumprod = alpha_bar.sqrt()
    diffusion.sqrt_one_minus_alphas_cumprod = (1 - alpha_bar).sqrt()
    diffusion.sqrt_recip_alphas_cumprod = (1 / alpha_bar).sqrt()
    diffusion.sqrt_recipm1_alphas_cumprod = (1 / alpha_bar - 1).sqrt()
    return diffusion


def ddp(dtype, objective):
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    unet = Unet(8, dim_mults=(1, 2), attn_dim_head=8)
    diffusion = GaussianDiffusion(unet, image_size=8, objective=objective).eval()
    diffusion = in_double(diffusion) if dtype == torch.float64 else diffusion

    def formula(x, t):
        return diffusion.model_predictions(x, torch.tensor([t, t])).pred_x_start

    return load(diffusion), formula


DDP = "denoising_diffusion_pytorch"


@case("denoising_diffusion", "GaussianDiffusion, pred_noise", t=300, needs=DDP)
def ddp_noise(dtype):
    return ddp(dtype, "pred_noise")


@case("denoising_diffusion", "GaussianDiffusion, pred_x0", t=300, needs=DDP)
def ddp_x0(dtype):
    return ddp(dtype, "pred_x0")


@case("denoising_diffusion", "GaussianDiffusion, pred_v", t=600, needs=DDP)
def ddp_v(dtype):
    return ddp(dtype, "pred_v")


@case("denoising_diffusion", "LearnedGaussianDiffusion", t=300, needs=DDP)
def ddp_learned(dtype):
    from denoising_diffusion_pytorch import LearnedGaussianDiffusion, Unet

    unet = Unet(8, dim_mults=(1, 2), attn_dim_head=8, out_dim=6)
    diffusion = LearnedGaussianDiffusion(unet, image_size=8, objective="pred_noise").eval()
    diffusion = in_double(diffusion) if dtype == torch.float64 else diffusion

    def formula(x, t):
        return diffusion.p_mean_variance(x=x, t=torch.tensor([t, t]), clip_denoised=False)[-1]

    return load(diffusion), formula


@case("denoising_diffusion", "GaussianDiffusion1D of series", t=300, needs=DDP)
def ddp_series(dtype):
    from denoising_diffusion_pytorch import GaussianDiffusion1D, Unet1D

    unet = Unet1D(8, dim_mults=(1, 2), channels=2, attn_dim_head=8)
    diffusion = GaussianDiffusion1D(unet, seq_length=16, objective="pred_v").eval()
    diffusion = in_double(diffusion) if dtype == torch.float64 else diffusion
    return load(
        diffusion
    ), lambda x, t: diffusion.model_predictions(x, torch.tensor([t, t])).pred_x_start
