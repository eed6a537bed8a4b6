"""Common patterns between two convolutions, a line each."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo.parts import Ends, Layer
from zoo.registry import entry

pattern = partial(entry, "pattern", shape=(2, 8, 8), prediction="v")


PATTERNS = {
    "instance_norm_relu_in_place": lambda: nn.Sequential(
        nn.InstanceNorm2d(16), nn.ReLU(inplace=True)
    ),
    "instance_norm_affine": lambda: nn.Sequential(nn.InstanceNorm2d(16, affine=True), nn.SiLU()),
    "batch_norm_relu_in_place": lambda: nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
    "group_norm_silu_in_place": lambda: nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(inplace=True)),
    "prelu_relu_in_place": lambda: nn.Sequential(nn.PReLU(), nn.ReLU(inplace=True)),
    "local_response_norm": lambda: nn.LocalResponseNorm(5),
    "rms_norm": lambda: Layer(lambda h, n: n(h.mT).mT, nn.RMSNorm(8)),
    "pixel_norm": lambda: Layer(lambda h: h * (h.square().mean(1, keepdim=True) + 1e-8).rsqrt()),
    "max_pool_unpool": lambda: Layer(
        lambda h: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2)
    ),
    "adaptive_pools": lambda: Layer(
        lambda h: h * torch.sigmoid(F.adaptive_avg_pool2d(h, 1) + F.adaptive_max_pool2d(h, 1))
    ),
    "lp_pool": lambda: Layer(
        lambda h: F.interpolate(F.lp_pool2d(h.abs() + 0.1, 2, 2), scale_factor=2)
    ),
    "circular_padding": lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"),
    "reflect_padding": lambda: nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.Tanh()
    ),
    "replicate_padding": lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="replicate"),
    "padding_by_slices": lambda: Layer(lambda h, c: c(padded_by_hand(h)), nn.Conv2d(16, 16, 3)),
    "pixel_shuffle_unshuffle": lambda: Layer(
        lambda h: F.pixel_shuffle(torch.tanh(F.pixel_unshuffle(h, 2)), 2)
    ),
    "space_to_depth_by_einops": lambda: Layer(
        lambda h: (
            h.unfold(2, 2, 2)
            .unfold(3, 2, 2)
            .sum((-1, -2))
            .tanh()
            .repeat_interleave(2, 2)
            .repeat_interleave(2, 3)
        )
    ),
    "unfold_fold": lambda: Layer(
        lambda h: F.fold(F.unfold(h, 3, padding=1).tanh(), (8, 8), 3, padding=1)
    ),
    "interpolate_bicubic_antialiased": lambda: Layer(
        lambda h: F.interpolate(
            F.interpolate(h, scale_factor=0.5, mode="bicubic", antialias=True),
            size=(8, 8),
            mode="bilinear",
            align_corners=True,
        )
    ),
    "interpolate_area": lambda: Layer(
        lambda h: F.interpolate(F.interpolate(h, size=(4, 4), mode="area"), size=(8, 8))
    ),
    "grid_sample_warp": lambda: Layer(
        lambda h, c: F.grid_sample(
            h, base_grid(h) + 0.1 * c(h).tanh().permute(0, 2, 3, 1), align_corners=False
        ),
        nn.Conv2d(16, 2, 3, padding=1),
    ),
    "spatial_transformer": lambda: Layer(
        lambda h, a: F.grid_sample(
            h,
            F.affine_grid(
                torch.eye(2, 3).to(h) + 0.1 * a(h.mean((2, 3))).reshape(-1, 2, 3),
                h.shape,
                align_corners=True,
            ),
            align_corners=True,
        ),
        nn.Linear(16, 6),
    ),
    "deformable_by_gather": lambda: Layer(
        lambda h: h.flatten(2).gather(2, h.flatten(2).argsort(2)).reshape(h.shape)
    ),
    "sort_values": lambda: Layer(lambda h: h.flatten(2).sort(-1).values.reshape(h.shape)),
    "cumsum_cumprod": lambda: Layer(lambda h: h.cumsum(-1) * 0.1 + torch.cumprod(1 + 0.1 * h, -2)),
    "cummax_cummin": lambda: Layer(lambda h: h.cummax(-1).values - h.cummin(-2).values),
    "roll_shift_windows": lambda: Layer(
        lambda h: torch.roll(torch.roll(h, (2, 2), (2, 3)).tanh(), (-2, -2), (2, 3))
    ),
    "squeeze_and_excitation": lambda: Layer(
        lambda h, a, b: h * b(F.relu(a(h.mean((2, 3))))).sigmoid()[:, :, None, None],
        nn.Linear(16, 4),
        nn.Linear(4, 16),
    ),
    "gated_linear_units": lambda: Layer(lambda h, c: F.glu(c(h), 1), nn.Conv2d(16, 32, 1)),
    "softmax_logsumexp": lambda: Layer(
        lambda h: h.softmax(1) * 5 + h.logsumexp(1, keepdim=True) + h.log_softmax(-1)
    ),
    "exotic_activations": lambda: nn.Sequential(
        nn.Mish(),
        nn.Softsign(),
        nn.CELU(),
        nn.SELU(),
        nn.Hardswish(),
        nn.GELU("tanh"),
        nn.Tanhshrink(),
        nn.LogSigmoid(),
        nn.ELU(),
        nn.RReLU(),
        nn.Softshrink(0.01),
    ),
    "snake_activation": lambda: Layer(lambda h: h + torch.sin(3 * h).square() / 3),
    "residual_in_place": lambda: Layer(lambda h, n: F.gelu(n(h)).add_(h), nn.GroupNorm(4, 16)),
    "slice_zeroed_on_a_clone": lambda: Layer(lambda h: written(h.clone(), slice(0, 8), 0.0)),
    "slice_scaled_freeu": lambda: Layer(lambda h: written(h.clone(), slice(0, 8), h[:, :8] * 1.4)),
    "masked_scatter": lambda: Layer(
        lambda h: h.masked_scatter(torch.ones(8, 8).tril().bool(), h.tanh().flip(-1))
    ),
    "index_put_accumulate": lambda: Layer(
        lambda h: (
            h.clone()
            .index_put_(
                (torch.arange(len(h)), torch.zeros(len(h)).long()), h[:, 1], accumulate=True
            )
            .tanh()
        )
    ),
    "index_add_channels": lambda: Layer(
        lambda h: torch.zeros_like(h).index_add_(1, torch.arange(16).flip(0), h)
    ),
    "scatter_add": lambda: Layer(
        lambda h: torch.zeros_like(h).scatter_add_(1, torch.zeros_like(h).long() + 3, h) + h
    ),
    "unsqueeze_in_place": lambda: Layer(lambda h: torch.tanh(h) - h.mean(1).unsqueeze_(1)),
    "transpose_in_place": lambda: Layer(lambda h: (h * 1.0).transpose_(2, 3).tanh()),
    "flatten_relu_view": lambda: Layer(
        lambda h: torch.relu_((h * 1.0).view(len(h), -1)).view_as(h)
    ),
    "overlapping_slices_in_place": lambda: Layer(
        lambda h: torch.cat([(y := h + 0)[:, :8].mul_(2), y[:, 4:12].tanh_()], 1)
    ),
    "out_argument": lambda: Layer(lambda h: torch.add(h, h.detach() * 0 + 1).tanh()),
    "dynamic_thresholding": lambda: Layer(lambda h: thresholded(h)),
    "quantile_scale": lambda: Layer(
        lambda h: h / h.flatten(1).abs().quantile(0.9, dim=1)[:, None, None, None]
    ),
    "median_and_kthvalue": lambda: Layer(
        lambda h: (
            h
            - h.flatten(2).median(-1).values[..., None, None]
            - h.flatten(2).kthvalue(10, -1).values[..., None, None]
        )
    ),
    "global_response_norm": lambda: Layer(
        lambda h: h + h * (g := h.norm(dim=(2, 3), keepdim=True)) / (g.mean(1, True) + 1e-6)
    ),
    "solve_and_cholesky": lambda: Layer(
        lambda h: (
            torch.linalg.solve(h @ h.mT + 9 * torch.eye(8).to(h), h)
            + torch.linalg.cholesky(h @ h.mT + 9 * torch.eye(8).to(h))
        )
    ),
    "matrix_exponential": lambda: Layer(lambda h: torch.linalg.matrix_exp(0.1 * (h - h.mT)) @ h),
    "singular_value_soft": lambda: Layer(
        lambda h: torch.linalg.svd(h)[1].sum(-1)[..., None, None] * h
    ),
    "whitening_inverse_root": lambda: Layer(
        lambda h: torch.linalg.inv(h @ h.mT + torch.eye(8).to(h)) @ h
    ),
    "einsum_bilinear": lambda: Layer(
        lambda h: torch.einsum("bcij,bdij,bdkj->bcik", h, h, h) * 0.01
    ),
    "bilinear_pool": lambda: Layer(
        lambda h: torch.bmm(h.flatten(2), h.flatten(2).mT).tanh().bmm(h.flatten(2)).reshape(h.shape)
    ),
    "cdist_kernel": lambda: Layer(
        lambda h: (
            (torch.cdist(h.flatten(2), h.flatten(2).flip(1)) * -1)
            .softmax(-1)
            .bmm(h.flatten(2))
            .reshape(h.shape)
        )
    ),
    "where_and_clamp": lambda: Layer(
        lambda h: torch.where(h > 0, h.clamp(max=1.0), 0.1 * h) + h.clip(-0.5, 0.5)
    ),
    "loop_until_small": lambda: Layer(lambda h: halved(h)),
    "checkpoint_not_reentrant": lambda: Layer(
        lambda h, c: checkpoint(c, h, use_reentrant=False), nn.Conv2d(16, 16, 3, padding=1)
    ),
    "checkpoint_reentrant": lambda: Layer(
        lambda h, c: checkpoint(c, h, use_reentrant=True), nn.Conv2d(16, 16, 3, padding=1)
    ),
    "detached_scale": lambda: Layer(lambda h: h / h.detach().std((1, 2, 3), keepdim=True)),
    "no_grad_part": lambda: Layer(
        lambda h, c: h + torch.no_grad()(c)(h), nn.Conv2d(16, 16, 3, padding=1)
    ),
    "straight_through_rounding": lambda: Layer(
        lambda h: h + 0.1 * (torch.round(h) - h).detach() * 0 + h.tanh()
    ),
    "nested_vmap": lambda: Layer(
        lambda h: torch.vmap(torch.vmap(lambda row: row.softmax(0) * row.norm()))(
            h.flatten(2)
        ).reshape(h.shape)
    ),
    "jvp_inside": lambda: Layer(
        lambda h: torch.func.jvp(torch.tanh, (h,), (torch.ones_like(h),))[1]
    ),
    "sinkhorn_normalised": lambda: Layer(lambda h: sinkhorn(h)),
    "gumbel_without_noise": lambda: Layer(lambda h: F.softmax(h / 0.3, 1) * h),
    "embedding_bag_of_position": lambda: Layer(
        lambda h, e: h + e(torch.arange(8)).mT[None, :, :, None], nn.Embedding(8, 16)
    ),
    "squared_relu_powers": lambda: Layer(
        lambda h: F.relu(h).square() + (h.abs() + 0.1).pow(1.5) + h**3 * 0.01
    ),
    "trigonometry": lambda: Layer(
        lambda h: (
            torch.atan2(h, 2 + h.cos()) + torch.erf(h) + torch.special.expit(h) + torch.sinc(h)
        )
    ),
    "polynomial_norms": lambda: Layer(
        lambda h: h / (1 + torch.linalg.vector_norm(h, 3, 1, True)) + F.normalize(h, p=4.0, dim=1)
    ),
    "triu_tril_mixture": lambda: Layer(lambda h: h.tril() @ h.triu() * 0.1),
    "haar_wavelet": lambda: Layer(lambda h: haar(h)),
    "conv_transpose_dilated": lambda: nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.Tanh(),
        nn.ConvTranspose2d(16, 16, 3, padding=1, groups=4),
    ),
    "conv1d_conv3d": lambda: Layer(
        lambda h, a, b: b(a(h.flatten(2)).reshape(h.shape)[:, None])[:, 0],
        nn.Conv1d(16, 16, 3, padding=1),
        nn.Conv3d(1, 1, 3, padding=1),
    ),
    "dropout_in_evaluation": lambda: nn.Sequential(
        nn.Dropout(0.5), nn.Tanh(), nn.Dropout2d(0.3), nn.AlphaDropout(0.2)
    ),
    "stochastic_depth_in_evaluation": lambda: Layer(
        lambda h, c: h + (c(h) if True else 0), nn.Conv2d(16, 16, 1)
    ),
    "spectral_norm": lambda: torch.nn.utils.parametrizations.spectral_norm(
        nn.Conv2d(16, 16, 3, padding=1)
    ),
    "weight_norm": lambda: torch.nn.utils.parametrizations.weight_norm(
        nn.Conv2d(16, 16, 3, padding=1)
    ),
    "orthogonal_weight": lambda: nn.Sequential(
        torch.nn.utils.parametrizations.orthogonal(nn.Conv2d(16, 16, 1)), nn.Tanh()
    ),
    "low_rank_adapter": lambda: Layer(
        lambda h, c, a, b: c(h) + 0.5 * b(a(h)),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 2, 1, bias=False),
        nn.Conv2d(2, 16, 1, bias=False),
    ),
    "pruned_weight": lambda: pruned(nn.Conv2d(16, 16, 3, padding=1)),
    "hyper_network": lambda: Layer(
        lambda h, a: torch.einsum("boi,bihw->bohw", a(h.mean((2, 3))).reshape(-1, 16, 16), h),
        nn.Linear(16, 256),
    ),
    "dynamic_convolution_by_groups": lambda: Layer(
        lambda h, a: F.conv2d(
            h.reshape(1, -1, 8, 8),
            a(h.mean((2, 3))).reshape(-1, 1, 3, 3),
            padding=1,
            groups=16 * len(h),
        ).reshape(h.shape),
        nn.Linear(16, 144),
    ),
    "normalising_flow_coupling": lambda: Layer(
        lambda h, c: coupled(h, c), nn.Conv2d(8, 16, 3, padding=1)
    ),
    "forward_hooks": lambda: hooked(nn.Conv2d(16, 16, 3, padding=1)),
    "weights_of_complex_numbers": lambda: Layer(
        lambda h: (
            torch.view_as_real(
                torch.complex(h, h.flip(1)) * torch.complex(h.new_tensor(0.6), h.new_tensor(0.8))
            )
            .sum(-1)
            .tanh()
        )
    ),
    "complex_modulus_angle": lambda: Layer(
        lambda h: (z := torch.complex(h, h.roll(1, 1) + 2)).abs() + 0.1 * z.angle()
    ),
    "hilbert_envelope": lambda: Layer(
        lambda h: torch.fft.ifft(
            torch.fft.fft(h) * torch.tensor([1, 2, 2, 2, 1, 0, 0, 0]).to(h)
        ).abs()
    ),
    "discrete_cosine_by_matmul": lambda: Layer(
        lambda h: (c := cosines(h)).mT @ ((c @ h @ c.mT).tanh()) @ c
    ),
}


def padded_by_hand(h):
    out = h.new_zeros(*h.shape[:2], 10, 10)
    out[..., 1:-1, 1:-1] = h
    out[..., 0, 1:-1], out[..., -1, 1:-1] = h[..., -1, :], h[..., 0, :]
    return out


def written(y, where, value):
    y[:, where] = value
    return y


def base_grid(h):
    return F.affine_grid(torch.eye(2, 3).to(h).expand(len(h), 2, 3), h.shape, align_corners=False)


def thresholded(h):
    s = torch.quantile(h.reshape(len(h), -1).abs(), 0.9, dim=1).clamp(min=0.5).unsqueeze(1)
    return (torch.clamp(h.reshape(len(h), -1), -s, s) / s).reshape(h.shape)


def halved(h):
    while h.abs().max() > 0.5:
        h = h / 2
    return h.tanh()


def sinkhorn(h):
    for _ in range(4):
        h = h - h.logsumexp(-1, keepdim=True)
        h = h - h.logsumexp(-2, keepdim=True)
    return h.exp()


def haar(h):
    a, b, c, d = h[..., ::2, ::2], h[..., ::2, 1::2], h[..., 1::2, ::2], h[..., 1::2, 1::2]
    low, high = (a + b + c + d) / 2, torch.tanh(a - b - c + d) / 2
    out = torch.empty_like(h)
    out[..., ::2, ::2], out[..., ::2, 1::2], out[..., 1::2, ::2], out[..., 1::2, 1::2] = (
        low + high,
        low - high,
        low - high,
        low + high,
    )
    return out


def pruned(layer):
    from torch.nn.utils import prune

    prune.random_unstructured(layer, "weight", 0.5)
    return layer


def coupled(h, net):
    a, b = h.chunk(2, 1)
    scale, shift = net(a).chunk(2, 1)
    return torch.cat([a, b * scale.tanh().exp() + shift], 1)


def hooked(layer):
    layer.register_forward_pre_hook(lambda module, args: (args[0].tanh(),))
    layer.register_forward_hook(lambda module, args, out: out * torch.sigmoid(args[0]))
    return layer


def cosines(h):
    k = torch.arange(8).to(h)
    return torch.cos(torch.pi * (k + 0.5) * k[:, None] / 8) / 2


def _enter(name, make):
    def build():
        return Ends(make())

    build.__name__ = name
    pattern()(build)


for _name, _make in PATTERNS.items():
    _enter(_name, _make)
