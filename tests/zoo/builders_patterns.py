"""Networks written by hand: architectures of papers, and ways to compute that a recording, or autograd, may stumble over."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo.registry import Wrapped, entry, fixed, image, tokens

family = partial(entry, "by hand", shape=(4, 8, 8))
pattern = partial(entry, "pattern", shape=(2, 8, 8), prediction="v")
coarse = partial(entry, "half precision", shape=(2, 8, 8), prediction="v")


class Ends(nn.Module):
    """A convolution in, `inner` on 16 channels, a convolution out."""

    def __init__(self, inner, channels=2, width=16, padding_mode="zeros"):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, padding_mode=padding_mode)
        self.last = nn.Conv2d(width, channels, 3, padding=1, padding_mode=padding_mode)
        self.inner = inner

    def forward(self, x, t):
        h = self.first(x) * (1 + 0.001 * t.to(x).reshape(-1, 1, 1, 1))
        return self.last(self.inner(h))


class Layer(nn.Module):
    """A function with weights, `function(modules, h)`."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, h):
        return self.function(h, *self.parts)


def small(channels=2):
    return Ends(nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU()), channels)


def inner(function, *modules, **options):
    return Ends(Layer(function, *modules), **options)


# ---- architectures -------------------------------------------------------------------------------------------------------


def unit(w):
    return w / (1e-4 + w.square().mean((1, 2, 3), keepdim=True).sqrt())


class MagnitudePreserving(nn.Module):
    """A layer as of Karras et al. (2024): the weight is normalised in each pass, activations keep their magnitude."""

    def __init__(self, c_in, c_out, kernel=3, forced=False):
        super().__init__()
        self.weight, self.forced = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel)), forced

    def forward(self, x):
        if self.forced:
            with torch.no_grad():
                self.weight.copy_(self.weight / self.weight.square().mean((1, 2, 3), keepdim=True).sqrt())
        w = unit(self.weight) / self.weight[0].numel() ** 0.5
        return F.conv2d(x, w.to(x.dtype), padding=self.weight.shape[-1] // 2)


def edm2(forced=False, clip=False):
    def forward(h, a, b, qkv):
        y = F.silu(a(F.silu(h) / 0.596)) / 0.596
        h = torch.lerp(h, b(y), 0.3) / (0.7**2 + 0.3**2) ** 0.5
        q, k, v = (
            z / (1e-4 + z.square().mean(2, keepdim=True).sqrt())
            for z in qkv(h).reshape(len(h), 2, 3, 8, 64).permute(2, 0, 1, 3, 4)
        )
        w = torch.einsum("bhcq,bhck->bhqk", q, k / 8**0.5).softmax(3)
        h = torch.lerp(h, torch.einsum("bhqk,bhck->bhcq", w, v).reshape(h.shape), 0.3)
        return h.clip_(-256, 256) if clip else h

    layers = [
        MagnitudePreserving(16, 16, forced=forced),
        MagnitudePreserving(16, 16, forced=forced),
        MagnitudePreserving(16, 48, 1, forced=forced),
    ]
    return inner(forward, *layers)


@family(shape=(2, 8, 8), prediction="sample")
def edm2_magnitude_preserving():
    return edm2()


@family(shape=(2, 8, 8), prediction="sample")
def edm2_in_place_clip():
    return edm2(clip=True)


@family(shape=(2, 8, 8), prediction="sample")
def edm2_forced_weight_norm():
    return edm2(forced=True)


@family(shape=(2, 8, 8), prediction="sample")
def edm_preconditioned():
    """c_skip x + c_out F(c_in x, log(sigma) / 4), the network cast to its own dtype, as in EDM's wrapper."""
    net = small()

    def call(net, x, t):
        sigma = (t.to(torch.float32) / 500 + 0.002).reshape(-1, 1, 1, 1)
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        c_in = 1 / (0.25 + sigma**2).sqrt()
        f = net((c_in * x), sigma.log().flatten() / 4)
        return c_skip * x + c_out * f.to(x.dtype)

    return Wrapped(net, call)


@family(shape=(2, 8, 8), prediction="sample", outcome="right")
def edm_cast_to_float32():
    """EDM's wrapper as published: x is cast to float32 whatever it is; the result is float32's."""
    net = small()

    def call(net, x, t):
        coarse = x.to(torch.float32).to(x.dtype)
        return 0.3 * x + 0.5 * net(0.8 * coarse, t)

    return Wrapped(net, call)


class Upfirdn(nn.Module):
    """Resampling with a binomial filter, as StyleGAN's: NCSN++'s."""

    def __init__(self, up):
        super().__init__()
        self.up = up
        k = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(k, k)[None, None] / 64)

    def forward(self, x):
        c = x.shape[1]
        if self.up:
            return F.conv_transpose2d(x, 4 * self.kernel.expand(c, 1, 4, 4), stride=2, padding=1, groups=c)
        return F.conv2d(x, self.kernel.expand(c, 1, 4, 4), stride=2, padding=1, groups=c)


@family(shape=(2, 8, 8))
def ncsnpp_like():
    def forward(h, down, up, a, b, c):
        y = b(F.silu(a(down(h))))
        return (h + up(y + c(y).tanh())) / 2**0.5

    return inner(
        forward,
        Upfirdn(False),
        Upfirdn(True),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.GroupNorm(4, 16, eps=1e-6),
        nn.Conv2d(16, 16, 1),
    )


class Block(nn.Module):
    """A transformer's block before normalisation."""

    def __init__(self, width=16, heads=2, attention=None):
        super().__init__()
        self.norm1, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.attention = attention or F.scaled_dot_product_attention

    def forward(self, h):
        b, n, c = h.shape
        q, k, v = self.qkv(self.norm1(h)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        h = h + self.out(self.attention(q, k, v).transpose(1, 2).reshape(b, n, c))
        return h + self.mlp(self.norm2(h))


class Transformer(nn.Module):
    """Patches, blocks, patches; a long skip as in U-ViT where asked for."""

    def __init__(self, channels=4, patch=2, attention=None, skip=False, block=None, depth=2):
        super().__init__()
        self.patch, self.skip = patch, skip
        self.first, self.last = nn.Linear(channels * patch**2, 16), nn.Linear(16, channels * patch**2)
        self.blocks = nn.ModuleList([block() if block else Block(attention=attention) for _ in range(depth)])
        self.join = nn.Linear(32, 16)
        self.position = nn.Parameter(0.1 * torch.randn(1, 1, 16))

    def forward(self, x, t):
        h = start = self.first(tokens(x, self.patch)) + self.position * (1 + 0.001 * t.to(x).reshape(-1, 1, 1))
        for block in self.blocks:
            h = block(h)
        if self.skip:
            h = self.join(torch.cat([h, start], -1))
        return image(self.last(h), x, self.patch)


@family()
def plain_transformer():
    return Transformer()


@family()
def u_vit():
    return Transformer(skip=True, depth=3)


def attended(attention):
    return Transformer(attention=attention)


@family()
def attention_by_softmax():
    return attended(lambda q, k, v: (q @ k.mT / 8**0.5).softmax(-1) @ v)


@family()
def attention_by_einsum():
    def attention(q, k, v):
        w = torch.einsum("bhqc,bhkc->bhqk", q, k).div_(8**0.5).softmax(-1)
        return torch.einsum("bhqk,bhkc->bhqc", w, v)

    return attended(attention)


@family()
def attention_sliced():
    def attention(q, k, v):
        out = torch.zeros_like(q)
        for i in range(q.shape[1]):
            out[:, i] = (
                torch.baddbmm(
                    torch.empty(len(q), q.shape[2], k.shape[2]).to(q), q[:, i], k[:, i].mT, beta=0, alpha=8**-0.5
                ).softmax(-1)
                @ v[:, i]
            )
        return out

    return attended(attention)


@family()
def attention_chunked_like_flash():
    """Blocks of keys with a running maximum and sum, in place."""

    def attention(q, k, v):
        top = q.new_full((*q.shape[:-1], 1), -torch.inf)
        total, out = torch.zeros_like(top), torch.zeros_like(q)
        for keys, values in zip(k.split(5, 2), v.split(5, 2), strict=True):
            s = q @ keys.mT / 8**0.5
            new = torch.maximum(top, s.amax(-1, keepdim=True))
            p, shrink = (s - new).exp(), (top - new).exp()
            total = total * shrink + p.sum(-1, keepdim=True)
            out = out * shrink + p @ values
            top = new
        return out / total

    return attended(attention)


class Flash(torch.autograd.Function):
    """Attention with its own backward, which recomputes the probabilities."""

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(q, k, v)
        return (q @ k.mT / 8**0.5).softmax(-1) @ v

    @staticmethod
    def backward(ctx, g):
        q, k, v = ctx.saved_tensors
        p = (q @ k.mT / 8**0.5).softmax(-1)
        dp = g @ v.mT
        ds = p * (dp - (dp * p).sum(-1, keepdim=True)) / 8**0.5
        return ds @ k, ds.mT @ q, p.mT @ g


@family()
def attention_by_autograd_function():
    return attended(Flash.apply)


@family()
def attention_linear():
    return attended(
        lambda q, k, v: (F.elu(q) + 1) @ ((F.elu(k) + 1).mT @ v) / ((F.elu(q) + 1) @ (F.elu(k) + 1).sum(-2)[..., None])
    )


@family()
def attention_cosine():
    return attended(lambda q, k, v: (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 5).softmax(-1) @ v)


@family()
def attention_causal():
    return attended(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))


@family()
def attention_masked_fill():
    return attended(lambda q, k, v: (q @ k.mT / 8**0.5).masked_fill_(torch.eye(16).bool(), -1e9).softmax(-1) @ v)


@family()
def attention_grouped_queries():
    return attended(lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :1].expand_as(k), v[:, :1].expand_as(v)))


@family()
def attention_enable_gqa():
    return attended(lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True))


@family()
def attention_kept_heads_topk():
    def attention(q, k, v):
        s = q @ k.mT
        least = s.topk(4, -1).values[..., -1:]
        return s.masked_fill(s < least, -torch.inf).softmax(-1) @ v

    return attended(attention)


def rope_complex(q):
    angles = torch.outer(torch.arange(q.shape[-2], dtype=torch.float64), torch.tensor([1.0, 0.1, 0.01, 0.001]).double())
    turn = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(torch.view_as_complex(q.reshape(*q.shape[:-1], 4, 2).contiguous()) * turn).flatten(-2)


def rope_written(q):
    angles = torch.outer(torch.arange(q.shape[-2], dtype=torch.float64), torch.tensor([1.0, 0.1, 0.01, 0.001]).double())
    out = torch.empty_like(q)
    out[..., 0::2] = q[..., 0::2] * angles.cos() - q[..., 1::2] * angles.sin()
    out[..., 1::2] = q[..., 0::2] * angles.sin() + q[..., 1::2] * angles.cos()
    return out


@family(prediction="flow")
def rotary_complex():
    return attended(lambda q, k, v: F.scaled_dot_product_attention(rope_complex(q), rope_complex(k), v))


@family(prediction="flow")
def rotary_written_into_slices():
    return attended(lambda q, k, v: F.scaled_dot_product_attention(rope_written(q), rope_written(k), v))


@family()
def multihead_attention_module():
    return Transformer(
        block=lambda: Layer(lambda h, a: h + a(h, h, h, need_weights=False)[0], nn.MultiheadAttention(16, 2, batch_first=True))
    )


@family()
def transformer_encoder_layer():
    return Transformer(block=lambda: nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True, norm_first=True))


@family()
def mlp_mixer():
    return Transformer(
        block=lambda: Layer(
            lambda h, n, a, b, m, c, d: (y := h + b(F.gelu(a(n(h).mT))).mT) + d(F.gelu(c(m(y)))),
            nn.LayerNorm(16),
            nn.Linear(16, 24),
            nn.Linear(24, 16),
            nn.LayerNorm(16),
            nn.Linear(16, 24),
            nn.Linear(24, 16),
        )
    )


@family()
def fnet():
    return Transformer(
        block=lambda: Layer(
            lambda h, n, m: (y := h + torch.fft.fft(torch.fft.fft(n(h), dim=-1), dim=-2).real) + m(y),
            nn.LayerNorm(16),
            nn.Sequential(nn.Linear(16, 16), nn.GELU()),
        )
    )


@family(shape=(2, 8, 8))
def fourier_neural_operator():
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(16, 16, 3, 3, 2) / 16)

        def forward(self, h):
            f = torch.fft.rfft2(h)
            out = torch.zeros_like(f)
            out[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", f[:, :, :3, :3], torch.view_as_complex(self.w))
            return F.gelu(torch.fft.irfft2(out, s=h.shape[-2:]) + h)

    return Ends(nn.Sequential(Spectral(), Spectral()))


@family(shape=(2, 8, 8))
def spectral_gate():
    return inner(lambda h: torch.fft.irfft2(torch.fft.rfft2(h) * fixed(h, 16, 8, 5)[:1], s=h.shape[-2:]).tanh())


@family(shape=(1, 8, 16))
def short_time_fourier():
    def call(_, x, t):
        s = torch.stft(x.flatten(1), 16, 4, window=torch.hann_window(16).to(x), return_complex=True, pad_mode="constant")
        s = s * torch.tanh(s.abs())
        return torch.istft(s, 16, 4, window=torch.hann_window(16).to(x), length=128).reshape(x.shape)

    return Wrapped(nn.Identity(), call)


def recurrent(kind, **options):
    net = kind(8, 8, batch_first=True, **options)
    wide = 16 if options.get("bidirectional") else 8
    return Wrapped(nn.ModuleList([net, nn.Linear(wide, 8)]), lambda n, x, t: n[1](n[0](x.flatten(1, 2))[0]).reshape(x.shape))


@family(shape=(2, 8, 8))
def rnn_over_rows():
    return recurrent(nn.RNN)


@family(shape=(2, 8, 8))
def gru_over_rows():
    return recurrent(nn.GRU)


@family(shape=(2, 8, 8))
def lstm_over_rows():
    return recurrent(nn.LSTM)


@family(shape=(2, 8, 8))
def lstm_bidirectional_two_layers():
    return recurrent(nn.LSTM, bidirectional=True, num_layers=2)


@family(shape=(2, 8, 8))
def gru_cell_loop():
    def call(net, x, t):
        h, outs = x.new_zeros(len(x), 16), []
        for row in x.flatten(1, 2).unbind(1):
            h = net[0](row, h)
            outs.append(net[1](h))
        return torch.stack(outs, 1).reshape(x.shape)

    return Wrapped(nn.ModuleList([nn.GRUCell(8, 16), nn.Linear(16, 8)]), call)


@family(shape=(2, 8, 8))
def state_space_scan():
    """A diagonal state space model over the pixels (S4D, Mamba without selection), by a cumulative sum in the log domain."""

    def scan(h):
        u = F.softplus(h.flatten(2))
        decay = -0.1 * torch.arange(1, 65).to(h)
        return torch.logcumsumexp(u.log() - decay, -1).add(decay).exp().reshape(h.shape)

    return inner(scan)


@family(shape=(2, 8, 8))
def selective_scan():
    def scan(h, gate):
        a, u = torch.sigmoid(gate(h)).flatten(2), h.flatten(2)
        state, out = torch.zeros_like(u[..., 0]), []
        for i in range(u.shape[-1]):
            state = a[..., i] * state + (1 - a[..., i]) * u[..., i]
            out.append(state)
        return torch.stack(out, -1).reshape(h.shape)

    return inner(scan, nn.Conv2d(16, 16, 1))


def experts(combine):
    def forward(h, router, *expert):
        flat = h.permute(0, 2, 3, 1).reshape(-1, 16)
        weight, index = router(flat).softmax(-1).topk(2)
        out = combine(flat, weight, index, expert)
        return out.reshape(len(h), 8, 8, 16).permute(0, 3, 1, 2)

    return inner(forward, nn.Linear(16, 3), *(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(3)))


@family(shape=(2, 8, 8))
def experts_by_index_add():
    def combine(flat, weight, index, expert):
        out = torch.zeros_like(flat)
        for i, net in enumerate(expert):
            row, slot = torch.where(index == i)
            out.index_add_(0, row, net(flat[row]) * weight[row, slot, None])
        return out

    return experts(combine)


@family(shape=(2, 8, 8))
def experts_by_mask():
    return experts(
        lambda flat, weight, index, expert: sum(
            net(flat) * (weight * (index == i)).sum(-1, keepdim=True) for i, net in enumerate(expert)
        )
    )


@family(shape=(2, 8, 8))
def experts_by_boolean_assignment():
    def combine(flat, weight, index, expert):
        out = torch.zeros_like(flat)
        for i, net in enumerate(expert):
            chosen = (index == i).any(-1)
            out[chosen] += net(flat[chosen])
        return out * weight.sum(-1, keepdim=True)

    return experts(combine)


@family(shape=(2, 8, 8))
def implicit_fixed_point():
    """A deep equilibrium layer: z = tanh(W z + U x) by 60 steps of iteration."""

    def solve(h, w):
        z = torch.zeros_like(h)
        for _ in range(60):
            z = torch.tanh(0.3 * w(z) + h)
        return z

    return inner(solve, nn.Conv2d(16, 16, 3, padding=1))


@family(shape=(2, 8, 8))
def implicit_by_no_grad_then_one_step():
    """The same, solved under no_grad and differentiated through one step only: autograd's J is another one."""

    def solve(h, w):
        with torch.no_grad():
            z = torch.zeros_like(h)
            for _ in range(60):
                z = torch.tanh(0.3 * w(z) + h)
        return torch.tanh(0.3 * w(z) + h)

    return inner(solve, nn.Conv2d(16, 16, 3, padding=1))


@family(shape=(2, 8, 8), prediction="epsilon")
def energy_gradient():
    """The network's output is the gradient of an energy, by autograd inside the forward pass."""

    def call(net, x, t):
        with torch.enable_grad():
            z = x if x.requires_grad else x.detach().requires_grad_()
            energy = net(z, t).square().sum() + F.softplus(z).sum()
            return torch.autograd.grad(energy, z, create_graph=True)[0]

    return Wrapped(small(), call)


@family(shape=(2, 8, 8), prediction="epsilon")
def energy_gradient_by_func():
    return Wrapped(small(), lambda net, x, t: torch.func.grad(lambda z: net(z, t).square().sum() + z.pow(4).sum())(x))


@family(shape=(1, 8, 8), prediction="sample")
def unrolled_gradient_descent():
    """A proximal network: gradient steps on a data term, a learned prior between them."""

    def call(net, x, t):
        z = x
        for _ in range(3):
            z = z - 0.3 * (F.avg_pool2d(z, 2).repeat_interleave(2, -1).repeat_interleave(2, -2) - x)
            z = z + 0.1 * net(z, t)
        return z

    return Wrapped(small(1), call)


@family(shape=(2, 8, 8))
def input_convex():
    class Convex(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(16, 2, 3, padding=1)

        def forward(self, x, t):
            return F.conv_transpose2d(F.softplus(F.conv2d(x, self.a.weight, padding=1)), self.a.weight, padding=1)

    return Convex()


# ---- patterns ------------------------------------------------------------------------------------------------------------

PATTERNS = {
    "instance_norm_relu_in_place": lambda: nn.Sequential(nn.InstanceNorm2d(16), nn.ReLU(inplace=True)),
    "instance_norm_affine": lambda: nn.Sequential(nn.InstanceNorm2d(16, affine=True), nn.SiLU()),
    "batch_norm_relu_in_place": lambda: nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
    "group_norm_silu_in_place": lambda: nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(inplace=True)),
    "prelu_relu_in_place": lambda: nn.Sequential(nn.PReLU(), nn.ReLU(inplace=True)),
    "local_response_norm": lambda: nn.LocalResponseNorm(5),
    "rms_norm": lambda: Layer(lambda h, n: n(h.mT).mT, nn.RMSNorm(8)),
    "pixel_norm": lambda: Layer(lambda h: h * (h.square().mean(1, keepdim=True) + 1e-8).rsqrt()),
    "max_pool_unpool": lambda: Layer(lambda h: F.max_unpool2d(*F.max_pool2d(h, 2, return_indices=True), 2)),
    "adaptive_pools": lambda: Layer(lambda h: h * torch.sigmoid(F.adaptive_avg_pool2d(h, 1) + F.adaptive_max_pool2d(h, 1))),
    "lp_pool": lambda: Layer(lambda h: F.interpolate(F.lp_pool2d(h.abs() + 0.1, 2, 2), scale_factor=2)),
    "circular_padding": lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"),
    "reflect_padding": lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.Tanh()),
    "replicate_padding": lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="replicate"),
    "padding_by_slices": lambda: Layer(lambda h, c: c(padded_by_hand(h)), nn.Conv2d(16, 16, 3)),
    "pixel_shuffle_unshuffle": lambda: Layer(lambda h: F.pixel_shuffle(torch.tanh(F.pixel_unshuffle(h, 2)), 2)),
    "space_to_depth_by_einops": lambda: Layer(
        lambda h: h.unfold(2, 2, 2).unfold(3, 2, 2).sum((-1, -2)).tanh().repeat_interleave(2, 2).repeat_interleave(2, 3)
    ),
    "unfold_fold": lambda: Layer(lambda h: F.fold(F.unfold(h, 3, padding=1).tanh(), (8, 8), 3, padding=1)),
    "interpolate_bicubic_antialiased": lambda: Layer(
        lambda h: F.interpolate(
            F.interpolate(h, scale_factor=0.5, mode="bicubic", antialias=True), size=(8, 8), mode="bilinear", align_corners=True
        )
    ),
    "interpolate_area": lambda: Layer(lambda h: F.interpolate(F.interpolate(h, size=(4, 4), mode="area"), size=(8, 8))),
    "grid_sample_warp": lambda: Layer(
        lambda h, c: F.grid_sample(h, base_grid(h) + 0.1 * c(h).tanh().permute(0, 2, 3, 1), align_corners=False),
        nn.Conv2d(16, 2, 3, padding=1),
    ),
    "spatial_transformer": lambda: Layer(
        lambda h, a: F.grid_sample(
            h,
            F.affine_grid(torch.eye(2, 3).to(h) + 0.1 * a(h.mean((2, 3))).reshape(-1, 2, 3), h.shape, align_corners=True),
            align_corners=True,
        ),
        nn.Linear(16, 6),
    ),
    "deformable_by_gather": lambda: Layer(lambda h: h.flatten(2).gather(2, h.flatten(2).argsort(2)).reshape(h.shape)),
    "sort_values": lambda: Layer(lambda h: h.flatten(2).sort(-1).values.reshape(h.shape)),
    "cumsum_cumprod": lambda: Layer(lambda h: h.cumsum(-1) * 0.1 + torch.cumprod(1 + 0.1 * h, -2)),
    "cummax_cummin": lambda: Layer(lambda h: h.cummax(-1).values - h.cummin(-2).values),
    "roll_shift_windows": lambda: Layer(lambda h: torch.roll(torch.roll(h, (2, 2), (2, 3)).tanh(), (-2, -2), (2, 3))),
    "squeeze_and_excitation": lambda: Layer(
        lambda h, a, b: h * b(F.relu(a(h.mean((2, 3))))).sigmoid()[:, :, None, None], nn.Linear(16, 4), nn.Linear(4, 16)
    ),
    "gated_linear_units": lambda: Layer(lambda h, c: F.glu(c(h), 1), nn.Conv2d(16, 32, 1)),
    "softmax_logsumexp": lambda: Layer(lambda h: h.softmax(1) * 5 + h.logsumexp(1, keepdim=True) + h.log_softmax(-1)),
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
    "masked_scatter": lambda: Layer(lambda h: h.masked_scatter(torch.ones(8, 8).tril().bool(), h.tanh().flip(-1))),
    "index_put_accumulate": lambda: Layer(
        lambda h: h.clone().index_put_((torch.zeros(len(h)).long(), torch.arange(len(h))), h[:, 0] * 0, accumulate=True).tanh()
    ),
    "index_add_channels": lambda: Layer(lambda h: torch.zeros_like(h).index_add_(1, torch.arange(16).flip(0), h)),
    "scatter_add": lambda: Layer(lambda h: torch.zeros_like(h).scatter_add_(1, torch.zeros_like(h).long() + 3, h) + h),
    "unsqueeze_in_place": lambda: Layer(lambda h: torch.tanh(h) - h.mean(1).unsqueeze_(1)),
    "transpose_in_place": lambda: Layer(lambda h: (h * 1.0).transpose_(2, 3).tanh()),
    "flatten_relu_view": lambda: Layer(lambda h: torch.relu_((h * 1.0).view(len(h), -1)).view_as(h)),
    "overlapping_slices_in_place": lambda: Layer(lambda h: torch.cat([(y := h + 0)[:, :8].mul_(2), y[:, 4:12].tanh_()], 1)),
    "out_argument": lambda: Layer(lambda h: torch.add(h, h.detach() * 0 + 1).tanh()),
    "dynamic_thresholding": lambda: Layer(lambda h: thresholded(h)),
    "quantile_scale": lambda: Layer(lambda h: h / h.flatten(1).abs().quantile(0.9, dim=1)[:, None, None, None]),
    "median_and_kthvalue": lambda: Layer(
        lambda h: h - h.flatten(2).median(-1).values[..., None, None] - h.flatten(2).kthvalue(10, -1).values[..., None, None]
    ),
    "global_response_norm": lambda: Layer(lambda h: h + h * (g := h.norm(dim=(2, 3), keepdim=True)) / (g.mean(1, True) + 1e-6)),
    "solve_and_cholesky": lambda: Layer(
        lambda h: (
            torch.linalg.solve(h @ h.mT + 9 * torch.eye(8).to(h), h) + torch.linalg.cholesky(h @ h.mT + 9 * torch.eye(8).to(h))
        )
    ),
    "matrix_exponential": lambda: Layer(lambda h: torch.linalg.matrix_exp(0.1 * (h - h.mT)) @ h),
    "singular_value_soft": lambda: Layer(lambda h: torch.linalg.svd(h)[1].sum(-1)[..., None, None] * h),
    "whitening_inverse_root": lambda: Layer(lambda h: torch.linalg.inv(h @ h.mT + torch.eye(8).to(h)) @ h),
    "einsum_bilinear": lambda: Layer(lambda h: torch.einsum("bcij,bdij,bdkj->bcik", h, h, h) * 0.01),
    "bilinear_pool": lambda: Layer(
        lambda h: torch.bmm(h.flatten(2), h.flatten(2).mT).tanh().bmm(h.flatten(2)).reshape(h.shape)
    ),
    "cdist_kernel": lambda: Layer(
        lambda h: (torch.cdist(h.flatten(2), h.flatten(2).flip(1)) * -1).softmax(-1).bmm(h.flatten(2)).reshape(h.shape)
    ),
    "where_and_clamp": lambda: Layer(lambda h: torch.where(h > 0, h.clamp(max=1.0), 0.1 * h) + h.clip(-0.5, 0.5)),
    "loop_until_small": lambda: Layer(lambda h: halved(h)),
    "checkpoint_not_reentrant": lambda: Layer(
        lambda h, c: checkpoint(c, h, use_reentrant=False), nn.Conv2d(16, 16, 3, padding=1)
    ),
    "checkpoint_reentrant": lambda: Layer(lambda h, c: checkpoint(c, h, use_reentrant=True), nn.Conv2d(16, 16, 3, padding=1)),
    "detached_scale": lambda: Layer(lambda h: h / h.detach().std((1, 2, 3), keepdim=True)),
    "no_grad_part": lambda: Layer(lambda h, c: h + torch.no_grad()(c)(h), nn.Conv2d(16, 16, 3, padding=1)),
    "straight_through_rounding": lambda: Layer(lambda h: h + 0.1 * (torch.round(h) - h).detach() * 0 + h.tanh()),
    "nested_vmap": lambda: Layer(
        lambda h: torch.vmap(torch.vmap(lambda row: row.softmax(0) * row.norm()))(h.flatten(2)).reshape(h.shape)
    ),
    "jvp_inside": lambda: Layer(lambda h: torch.func.jvp(torch.tanh, (h,), (torch.ones_like(h),))[1]),
    "sinkhorn_normalised": lambda: Layer(lambda h: sinkhorn(h)),
    "gumbel_without_noise": lambda: Layer(lambda h: F.softmax(h / 0.3, 1) * h),
    "embedding_bag_of_position": lambda: Layer(lambda h, e: h + e(torch.arange(8)).mT[None, :, :, None], nn.Embedding(8, 16)),
    "squared_relu_powers": lambda: Layer(lambda h: F.relu(h).square() + (h.abs() + 0.1).pow(1.5) + h**3 * 0.01),
    "trigonometry": lambda: Layer(
        lambda h: torch.atan2(h, 2 + h.cos()) + torch.erf(h) + torch.special.expit(h) + torch.sinc(h)
    ),
    "polynomial_norms": lambda: Layer(
        lambda h: h / (1 + torch.linalg.vector_norm(h, 3, 1, True)) + F.normalize(h, p=4.0, dim=1)
    ),
    "triu_tril_mixture": lambda: Layer(lambda h: h.tril() @ h.triu() * 0.1),
    "haar_wavelet": lambda: Layer(lambda h: haar(h)),
    "conv_transpose_dilated": lambda: nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.Tanh(), nn.ConvTranspose2d(16, 16, 3, padding=1, groups=4)
    ),
    "conv1d_conv3d": lambda: Layer(
        lambda h, a, b: b(a(h.flatten(2)).reshape(h.shape)[:, None])[:, 0],
        nn.Conv1d(16, 16, 3, padding=1),
        nn.Conv3d(1, 1, 3, padding=1),
    ),
    "dropout_in_evaluation": lambda: nn.Sequential(nn.Dropout(0.5), nn.Tanh(), nn.Dropout2d(0.3), nn.AlphaDropout(0.2)),
    "stochastic_depth_in_evaluation": lambda: Layer(lambda h, c: h + (c(h) if True else 0), nn.Conv2d(16, 16, 1)),
    "spectral_norm": lambda: torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(16, 16, 3, padding=1)),
    "weight_norm": lambda: torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1)),
    "orthogonal_weight": lambda: nn.Sequential(torch.nn.utils.parametrizations.orthogonal(nn.Conv2d(16, 16, 1)), nn.Tanh()),
    "low_rank_adapter": lambda: Layer(
        lambda h, c, a, b: c(h) + 0.5 * b(a(h)),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 2, 1, bias=False),
        nn.Conv2d(2, 16, 1, bias=False),
    ),
    "pruned_weight": lambda: pruned(nn.Conv2d(16, 16, 3, padding=1)),
    "hyper_network": lambda: Layer(
        lambda h, a: torch.einsum("boi,bihw->bohw", a(h.mean((2, 3))).reshape(-1, 16, 16), h), nn.Linear(16, 256)
    ),
    "dynamic_convolution_by_groups": lambda: Layer(
        lambda h, a: F.conv2d(
            h.reshape(1, -1, 8, 8), a(h.mean((2, 3))).reshape(-1, 1, 3, 3), padding=1, groups=16 * len(h)
        ).reshape(h.shape),
        nn.Linear(16, 144),
    ),
    "normalising_flow_coupling": lambda: Layer(lambda h, c: coupled(h, c), nn.Conv2d(8, 16, 3, padding=1)),
    "forward_hooks": lambda: hooked(nn.Conv2d(16, 16, 3, padding=1)),
    "weights_of_complex_numbers": lambda: Layer(
        lambda h: (
            torch.view_as_real(torch.complex(h, h.flip(1)) * torch.complex(h.new_tensor(0.6), h.new_tensor(0.8))).sum(-1).tanh()
        )
    ),
    "complex_modulus_angle": lambda: Layer(lambda h: (z := torch.complex(h, h.roll(1, 1) + 2)).abs() + 0.1 * z.angle()),
    "hilbert_envelope": lambda: Layer(
        lambda h: torch.fft.ifft(torch.fft.fft(h) * torch.tensor([1, 2, 2, 2, 1, 0, 0, 0]).to(h)).abs()
    ),
    "discrete_cosine_by_matmul": lambda: Layer(lambda h: (c := cosines(h)).mT @ ((c @ h @ c.mT).tanh()) @ c),
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


# ---- how the network is called, and what it returns --------------------------------------------------------------------


@pattern()
def compiled_function():
    net = small().double().eval()
    return torch.compile(lambda x, t: net(x, t), backend="aot_eager")


@pattern()
def compiled_module():
    return torch.compile(small(), backend="aot_eager")


@pattern()
def compiled_in_part():
    inner_part = torch.compile(nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)), backend="eager")
    return Ends(inner_part)


@pattern()
def compiled_and_frozen():
    net = small().double().eval().requires_grad_(False)
    return torch.compile(lambda x, t: net(x, t), backend="aot_eager", fullgraph=True)


@pattern()
def jit_traced():
    net = small().double().eval()
    return torch.jit.trace(net, (torch.randn(3, 2, 8, 8).double(), torch.full((3,), 500)), check_trace=False)


@pattern()
def jit_scripted():
    net = small().double().eval()
    return torch.jit.script(net)


@pattern()
def exported():
    net = small().double().eval()
    batch = torch.export.Dim("batch", min=1, max=256)
    given = (torch.randn(3, 2, 8, 8).double(), torch.full((3,), 500))
    module = torch.export.export(net, given, dynamic_shapes=({0: batch}, {0: batch})).module()
    return lambda x, t: module(x, t)  # it has no eval()


@pattern()
def fx_traced():
    return torch.fx.symbolic_trace(small())


@pattern()
def functional_call():
    net = small().double().eval()
    weights = dict(net.named_parameters())
    return lambda x, t: torch.func.functional_call(net, weights, (x, t))


@pattern()
def ensemble_by_vmap():
    nets = [small().double().eval() for _ in range(3)]
    weights, buffers = torch.func.stack_module_state(nets)

    def call(x, t):
        one = torch.func.functional_call
        return torch.vmap(lambda w, b: one(nets[0], (w, b), (x, t)))(weights, buffers).mean(0)

    return call


@pattern()
def called_under_no_grad():
    net = small().double().eval()
    return torch.no_grad()(lambda x, t: net(x, t))


@pattern()
def called_under_inference_mode():
    net = small().double().eval()
    return torch.inference_mode()(lambda x, t: net(x, t))


@dataclass
class Output:
    sample: torch.Tensor


@pattern()
def output_dataclass():
    return Wrapped(small(), lambda net, x, t: Output(net(x, t)))


@pattern()
def output_tuple():
    return Wrapped(small(), lambda net, x, t: (net(x, t),))


@pattern()
def output_dict():
    return Wrapped(small(), lambda net, x, t: {"sample": net(x, t)})


@pattern()
def output_tv_tensor():
    from torchvision import tv_tensors

    return Wrapped(small(), lambda net, x, t: tv_tensors.Image(net(x, t)))


@pattern()
def output_channels_last():
    return Wrapped(
        small().to(memory_format=torch.channels_last), lambda net, x, t: net(x.contiguous(memory_format=torch.channels_last), t)
    )


@pattern()
def output_is_a_view():
    return Wrapped(small(4), lambda net, x, t: net(torch.cat([x, x], 1), t)[:, 1:3])


@pattern()
def output_is_the_input():
    return lambda x, t: x


@pattern()
def output_is_constant():
    return lambda x, t: torch.ones_like(x)


@pattern()
def output_is_linear():
    return Wrapped(nn.Conv2d(2, 2, 3, padding=1), lambda net, x, t: net(x))


@pattern()
def sample_by_sample():
    return Wrapped(small(), lambda net, x, t: torch.cat([net(a[None], b[None]) for a, b in zip(x, t, strict=True)]))


@pattern()
def calls_through_a_list():
    return Wrapped(small(), lambda net, x, t: torch.stack([net(a[None], t[:1])[0] for a in list(x)]))


@pattern()
def clamps_a_weight():
    """k-diffusion's QKNorm: a scale that is clamped in place in each forward pass."""
    scale = nn.Parameter(torch.tensor(10.0))

    def call(net, x, t):
        with torch.no_grad():
            net[1].clamp_(max=100.0)
        return torch.tanh(net[0](x, t) * net[1])

    network = Wrapped(nn.Module(), lambda net, x, t: call((net.inner, net.scale), x, t))
    network.net.inner, network.net.scale = small(), scale
    return network


@pattern()
def time_embedded_and_cached():
    """A cache that holds what it should: keyed on all that it depends on."""
    net = small()
    cache = {}

    def call(net, x, t):
        key = (tuple(t.tolist()), x.dtype)
        if key not in cache:
            cache[key] = torch.sin(t.to(x))[:, None, None, None]
        return net(x, t) + cache[key]

    return Wrapped(net, call)


@pattern()
def sparse_weight():
    net = small()
    matrix = (torch.randn(128, 128, dtype=torch.float64) * (torch.rand(128, 128) < 0.1)).to_sparse()
    return Wrapped(net, lambda net, x, t: net((matrix @ x.flatten(1).mT).mT.reshape(x.shape).tanh(), t))


@pattern()
def sparse_csr_weight():
    net = small()
    matrix = (torch.randn(128, 128, dtype=torch.float64) * (torch.rand(128, 128) < 0.1)).to_sparse_csr()
    return Wrapped(net, lambda net, x, t: net((matrix @ x.flatten(1).mT).mT.reshape(x.shape).tanh(), t))


@pattern()
def sparse_parameter():
    net = small()
    net.register_parameter(
        "adjacency", nn.Parameter((torch.randn(128, 128).double() * (torch.rand(128, 128) < 0.1)).to_sparse())
    )
    return Wrapped(net, lambda net, x, t: net(torch.sparse.mm(net.adjacency, x.flatten(1).mT).mT.reshape(x.shape).tanh(), t))


@pattern()
def flex_attention():
    from torch.nn.attention.flex_attention import flex_attention as flex

    def call(net, x, t):
        h = net.first(x).reshape(len(x), 2, 8, 64).mT
        return net.last(
            flex(h, h.flip(2), h.tanh(), score_mod=lambda s, b, head, i, j: s - 0.1 * (i - j).abs()).mT.reshape(
                len(x), 16, 8, 8
            )
        )

    return Wrapped(small().requires_grad_(False), call)


# ---- parts in half precision: the truth is the same network in float64 ---------------------------------------------------


def behind_casts(dtype):
    net = small()
    net.inner.coarse = True
    net.inner[2].coarse = True
    net.inner.to(dtype)
    return Wrapped(net, lambda net, x, t: net.last(net.inner(net.first(x).to(dtype)).to(x.dtype)))


def doubled(network):
    for module in network.modules():
        module.coarse = False
    return network


@coarse(twin=lambda: doubled(behind_casts(torch.float32)))
def float32_behind_casts():
    return behind_casts(torch.float32)


@coarse(twin=lambda: doubled(behind_casts(torch.float16)))
def float16_behind_casts():
    return behind_casts(torch.float16)


@coarse(twin=lambda: doubled(behind_casts(torch.bfloat16)))
def bfloat16_behind_casts():
    return behind_casts(torch.bfloat16)


def autocast(dtype, on=True):
    def call(net, x, t):
        with torch.autocast("cpu", dtype, enabled=on):
            return net(x, t).to(x.dtype)

    return Wrapped(small(), call)


@coarse(twin=lambda: autocast(torch.bfloat16, False))
def autocast_bfloat16():
    return autocast(torch.bfloat16)


@coarse(twin=lambda: autocast(torch.float16, False))
def autocast_float16():
    return autocast(torch.float16)


@coarse()
def softmax_in_float32():
    return inner(lambda h: h * h.float().softmax(1).to(h.dtype))


@coarse()
def output_rounded_to_float16():
    return Wrapped(small(), lambda net, x, t: net(x, t).half().to(x.dtype))


@coarse()
def output_rounded_to_bfloat16():
    return Wrapped(small(), lambda net, x, t: net(x, t).bfloat16().to(x.dtype))


@coarse()
def input_rounded_to_float16():
    return Wrapped(small(), lambda net, x, t: net(x.half().to(x.dtype), t))


@coarse()
def float16_tight_range():
    """A cotangent that overflows in float16 while the values do not (Sana)."""
    return Ends(Layer(lambda h: ((h * 1e-4).half().to(h.dtype) * 1e4).tanh()))


@coarse(outcome="told")
def quantised_output():
    return Wrapped(small(), lambda net, x, t: torch.round(net(x, t) * 127) / 127)


@coarse(outcome="told")
def quantised_weights_and_activations():
    return Ends(Layer(lambda h: torch.fake_quantize_per_tensor_affine(h, 0.05, 0, -128, 127)))


@coarse(outcome="told")
def sign_network():
    return Ends(Layer(lambda h: torch.sign(h) * 0.3))
