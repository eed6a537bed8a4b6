"""Cases of flows, of azula, deepinv and functions of arrays; see `adapter_cases`."""

import numpy as np
import torch
from torch import nn

from jacobian_lab import RectifiedFlow, load

from adapter_cases import case
from adapter_cases_libraries import Net, full, per

# torchcfm and flow_matching: time runs from noise (0) to data (1)


class TimeFirst(Net):
    """torchcfm's order of arguments."""

    def forward(self, t, x):
        return super().forward(x, t)


@case("flows", "torchcfm: any network (t, x), straight path", t=0.3)
def cfm(dtype):
    """x_s = s x_1 + (1 - s) x_0 and v = x_1 - x_0, so that x_1 = x_s + (1 - s) v."""
    net = TimeFirst().to(dtype)
    made = load(net, family="torchcfm", shape=(3, 8, 8))
    return made, lambda x, t: x + t * net(full(1 - t, x), x)


@case("flows", "torchcfm: MLP of vectors", t=0.3, needs="torchcfm")
def cfm_mlp(dtype):
    from torchcfm.models.models import MLP

    net = MLP(5, w=16, time_varying=True).to(dtype)
    made = load(net, shape=(5,))
    return made, lambda x, t: x + t * net(torch.cat([x, per(full(1 - t, x), x)], 1))


CFM = {"t": 0.4, "needs": "torchcfm", "rounds": True, "double": False}


@case("flows", "torchcfm: UNetModelWrapper, variance preserving", **CFM)
def cfm_unet(dtype):
    """Against the library's own matcher: x_1 of x_t and u_t, two equations with two unknowns."""
    from torchcfm import VariancePreservingConditionalFlowMatcher
    from torchcfm.models.unet.unet import UNetModelWrapper

    net = UNetModelWrapper((3, 8, 8), 32, 1, channel_mult=(1, 1), attention_resolutions="4")
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    net = net.to(dtype).eval()
    matcher = VariancePreservingConditionalFlowMatcher()

    def formula(x, t):
        s = torch.tensor([1 - t], dtype=torch.float64)
        pairs = torch.eye(2, dtype=torch.float64).reshape(2, 2, 1, 1)  # (noise, data)
        at_noise, at_data = (float(matcher.compute_mu_t(*of, s)) for of in pairs)
        of_noise, of_data = (float(matcher.compute_conditional_flow(*of, s, None)) for of in pairs)
        v = net(full(1 - t, x), x)
        return (at_noise * v - of_noise * x) / (at_noise * of_data - of_noise * at_data)

    return load(net, path="trigonometric"), formula


def flow_matching(dtype, scheduler):
    """Against the library's own `velocity_to_target`... of the path."""
    from flow_matching.path import AffineProbPath
    from flow_matching.utils import ModelWrapper

    path = AffineProbPath(scheduler)
    net = ModelWrapper(Ordered()).to(dtype)

    def formula(x, t):
        s = torch.tensor(1 - t, dtype=torch.float64)
        return path.velocity_to_target(net(x, full(1 - t, x)), x, s)

    return load((net, path), shape=(3, 8, 8)), formula


class Ordered(Net):
    """`network(x=..., t=...)`."""

    def forward(self, x, t):
        return super().forward(x, t)


FLOW = "flow_matching"


@case("flows", "flow_matching: CondOT", t=0.3, needs=FLOW)
def flow_cond_ot(dtype):
    from flow_matching.path.scheduler import CondOTScheduler

    return flow_matching(dtype, CondOTScheduler())


@case("flows", "flow_matching: polynomial", t=0.3, needs=FLOW)
def flow_polynomial(dtype):
    from flow_matching.path.scheduler import PolynomialConvexScheduler

    return flow_matching(dtype, PolynomialConvexScheduler(3.0))


@case("flows", "flow_matching: VP", t=0.3, needs=FLOW)
def flow_vp(dtype):
    from flow_matching.path.scheduler import VPScheduler

    return flow_matching(dtype, VPScheduler())


# SiT and DiT


class SiT(Net):
    """A stand-in: the public attributes, and `forward(x, t, y)`."""

    in_channels, learn_sigma = 4, True

    def __init__(self):
        super().__init__(4, 8, classes=10)
        self.x_embedder, self.y_embedder = nn.Identity(), nn.Identity()
        self.x_embedder.img_size, self.y_embedder.num_classes = (8, 8), 10

    def forward(self, x, t, y):
        raw = super().forward(x, t, y)
        return raw.chunk(2, dim=1)[0] if type(self).__name__ == "SiT" else raw


class DiT(SiT):
    """A stand-in; unlike SiT it returns the variance, too."""


def guided(net, x, s, scale=3.0):
    label, null = (net(x, s, torch.full((2,), y))[:, :4] for y in (7, 10))
    return null + scale * (label - null)


# signal and noise of SiT's paths, and their derivatives, at its own time (its path.py)
SIT_PATHS = {
    "linear": lambda s: (s, 1 - s, 1, -1),
    "gvp": lambda s: (
        np.sin(s * np.pi / 2),
        np.cos(s * np.pi / 2),
        np.pi / 2 * np.cos(s * np.pi / 2),
        -np.pi / 2 * np.sin(s * np.pi / 2),
    ),
    "vp": lambda s: vp(s),
}


def vp(s):
    log = -0.25 * (1 - s) ** 2 * 19.9 - 0.5 * (1 - s) * 0.1
    rate = 0.5 * (1 - s) * 19.9 + 0.5 * 0.1
    alpha, sigma = np.exp(log), np.sqrt(1 - np.exp(2 * log))
    return alpha, sigma, alpha * rate, -np.exp(2 * log) * rate / sigma


def sit(dtype, path, predicts="velocity"):
    net = SiT().to(dtype)

    def formula(x, t):
        alpha, sigma, d_alpha, d_sigma = SIT_PATHS[path](1 - t)
        raw = guided(net, x, full(1 - t, x))
        if predicts == "noise":
            return (x - sigma * raw) / alpha
        if predicts == "score":
            return (x + sigma**2 * raw) / alpha
        return (sigma * raw - d_sigma * x) / (d_alpha * sigma - d_sigma * alpha)

    return load(net, label=7, guidance=3.0, path=path, predicts=predicts), formula


@case("sit", "SiT, linear path (stand-in)", t=0.3)
def sit_linear(dtype):
    return sit(dtype, "linear")


@case("sit", "SiT, GVP path (stand-in)", t=0.6)
def sit_gvp(dtype):
    return sit(dtype, "gvp")


@case("sit", "SiT, VP path (stand-in)", t=0.3)
def sit_vp(dtype):
    return sit(dtype, "vp")


@case("sit", "SiT, VP path, score (stand-in)", t=0.3)
def sit_score(dtype):
    return sit(dtype, "vp", "score")


@case("sit", "SiT, linear path, noise (stand-in)", t=0.3)
def sit_noise(dtype):
    return sit(dtype, "linear", "noise")


@case("sit", "DiT of its authors, learned variance (stand-in)", t=400)
def dit_original(dtype):
    net = DiT().to(dtype)
    alpha_bar = float(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[400])

    def formula(x, t):
        noise = guided(net, x, torch.tensor([t, t]))
        return (x - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5

    return load(net, label=7, guidance=3.0), formula


# azula, deepinv


class Backbone(Net):
    """azula's call, `backbone(x, t)`, whose time may be of one number."""

    def forward(self, x, t):
        return super().forward(x, 20 * t.expand(len(x)))


def azula(dtype, schedule):
    from azula.denoise import KarrasDenoiser

    denoiser = KarrasDenoiser(Backbone(), schedule).to(dtype)
    made = load(denoiser, shape=(3, 8, 8))
    return made, lambda x, t: denoiser(x, full(t, x)).mean


@case("azula", "azula: KarrasDenoiser, VP", t=0.3, needs="azula")
def azula_vp(dtype):
    from azula.noise import VPSchedule

    return azula(dtype, VPSchedule())


@case("azula", "azula: KarrasDenoiser, rectified", t=0.3, needs="azula")
def azula_rectified(dtype):
    from azula.noise import RectifiedSchedule

    return azula(dtype, RectifiedSchedule())


@case("azula", "azula: KarrasDenoiser, VE", t=0.3, needs="azula")
def azula_ve(dtype):
    from azula.noise import VESchedule

    return azula(dtype, VESchedule(1e-2, 1e2))


@case("deepinv", "deepinv: DRUNet", t=0.2, scale=0.5, needs="deepinv")
def drunet(dtype):
    """Pixels in [0, 1], and sigma on their scale."""
    import deepinv

    net = deepinv.models.DRUNet(nc=(4, 4, 8, 8), nb=1, pretrained=None).to(dtype)
    made = load(net, shape=(3, 8, 8))
    return made, lambda x, t: 2 * net((x + 1) / 2, t / 2) - 1


# functions of arrays


def linear_map(x, t):
    """A function of numpy arrays, whose derivative is known."""
    return np.tanh(x @ MAP.T) * (1 + t[:, None])


MAP = np.random.default_rng(0).standard_normal((6, 6)) / 3


def slope(x, t):
    return (1 - np.tanh(x @ MAP.T) ** 2) * (1 + t[:, None])


def jvp(x, t, v):
    return slope(x, t) * (v @ MAP.T)


def vjp(x, t, u):
    return (slope(x, t) * u) @ MAP


ARRAYS = {"family": "arrays", "schedule": RectifiedFlow(), "prediction": "flow", "shape": (6,)}


@case("arrays", "numpy function with jvp and vjp", t=0.3, path="double backward")
def numpy_exact(dtype):
    made = load(linear_map, **ARRAYS, jvp=jvp, vjp=vjp)
    return made, lambda x, t: x - t * torch.from_numpy(linear_map(x.numpy(), np.full(2, t))).to(x)


@case("arrays", "JAX function", t=0.3, path="double backward", needs="jax")
def jax_function(dtype):
    import jax
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def network(x, t):
        return jnp.tanh(x @ MAP.T) * (1 + t[:, None])

    made = load(network, **ARRAYS, library="jax")
    return made, lambda x, t: x - t * torch.from_numpy(linear_map(x.numpy(), np.full(2, t))).to(x)
