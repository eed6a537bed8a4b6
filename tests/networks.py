"""Small random networks of the kinds that people use, in evaluation mode."""

import torch
from torch import nn
from torch.nn import functional as F

from jacobian_lab import Denoiser, DiscreteSchedule, RectifiedFlow
from mnist.unet import UNet

SHAPE = (1, 8, 8)


class Convolutional(nn.Module):
    """Convolutions, normalisation, attention by the fused kernel, a time."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.qkv = nn.Conv2d(8, 24, 1)

    def forward(self, x, t):
        h = self.norm(self.first(x)) * (1 + 0.001 * t.to(x).view(-1, 1, 1, 1))
        q, k, v = self.qkv(h).flatten(2).mT.chunk(3, dim=-1)
        h = h + F.scaled_dot_product_attention(q, k, v).mT.reshape(h.shape)
        return self.last(F.silu(h))


def denoiser(prediction="v", flow=False, dtype=torch.float64, seed=0):
    """A convolutional network with attention, as a denoiser."""
    torch.manual_seed(seed)
    return (
        Denoiser(
            Convolutional(),
            RectifiedFlow() if flow else DiscreteSchedule.linear(),
            prediction,
            SHAPE,
        )
        .to(dtype)
        .eval()
    )


def unet(dtype=torch.float64, seed=0):
    """The U-Net of the project, small, its zero-initialised layers made random."""
    torch.manual_seed(seed)
    network = UNet(channels=(32, 32, 32))
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return Denoiser(network, DiscreteSchedule.linear(), "v", SHAPE).to(dtype).eval()


def coarse(denoiser):
    """The denoiser with its network's output rounded to half precision."""
    network = denoiser.network

    class Coarse(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, t):
            return self.network(x, t).half().float()

    return Denoiser(Coarse().eval(), denoiser.schedule, denoiser.prediction, denoiser.shape)


def truth(denoiser, x_t, t):
    """The Jacobian by torch.func.jacrev, (n, n): independent of the code under test."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        return torch.func.jacrev(lambda x: denoiser(x.reshape(1, *denoiser.shape), t).reshape(-1))(
            x_t.reshape(-1)
        ).detach()


def dense_at(denoiser, image, t, seed=0, number=0):
    """J in float64 at a noisy image, (n, n), as the studies draw it; `number` is the image's."""
    from mnist.evaluate import noisy_digit

    double, image = denoiser.double(), torch.as_tensor(image).double()
    return truth(double, noisy_digit(double, image, t, seed, number), t).numpy()
