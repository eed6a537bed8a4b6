"""Transformers of diffusers for videos, whose frames are folded into the channels."""

from functools import partial

import torch

from zoo.builders_unet2d import package
from zoo.registry import Wrapped, entry, fixed, video

film = partial(entry, "diffusers video", shape=(8, 4, 4), needs="diffusers")  # 4 channels, 2 frames


@film(prediction="v")
def cogvideox():
    net = package().CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=1,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        max_text_seq_length=5,
    )
    return Wrapped(
        net,
        lambda net, x, t: (
            net(video(x, 2).transpose(1, 2), fixed(x, 5, 8), t).sample.transpose(1, 2).flatten(1, 2)
        ),
    )


@film(prediction="v")
def cogvideox_rotary():
    net = package().CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=1,
        sample_width=4,
        sample_height=4,
        sample_frames=5,
        max_text_seq_length=5,
        use_rotary_positional_embeddings=True,
    )
    angles = torch.randn(8, 16, dtype=torch.float64)
    return Wrapped(
        net,
        lambda net, x, t: (
            net(
                video(x, 2).transpose(1, 2),
                fixed(x, 5, 8),
                t,
                image_rotary_emb=(angles.cos(), angles.sin()),
            )
            .sample.transpose(1, 2)
            .flatten(1, 2)
        ),
    )


WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 16,
    "num_layers": 1,
    "rope_max_seq_len": 32,
}


@film(prediction="flow")
def wan():
    return Wrapped(
        package().WanTransformer3DModel(**WAN),
        lambda net, x, t: net(video(x, 2), 1000 * t, fixed(x, 5, 8)).sample.flatten(1, 2),
    )


@film(prediction="flow")
def wan_image_to_video():
    net = package().WanTransformer3DModel(
        **{**WAN, "in_channels": 8}, image_dim=8, added_kv_proj_dim=24
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            torch.cat([video(x, 2), fixed(x, 4, 2, 4, 4)], 1),
            1000 * t,
            fixed(x, 5, 8),
            fixed(x, 5, 8),
        ).sample.flatten(1, 2),
    )


@film(prediction="flow")
def skyreels_v2():
    return Wrapped(
        package().SkyReelsV2Transformer3DModel(**WAN),
        lambda net, x, t: net(video(x, 2), (1000 * t).long(), fixed(x, 5, 8)).sample.flatten(1, 2),
    )


@film(prediction="flow")
def ltx_video():
    net = package().LTXVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=8,
    )

    def call(net, x, t):
        h = net(
            x.unflatten(1, (4, 2)).flatten(2).mT,
            fixed(x, 5, 8),
            1000 * t[:, None],
            torch.ones(len(x), 5).long(),
            2,
            4,
            4,
        )
        return h.sample.mT.reshape(x.shape)

    return Wrapped(net, call)


@film(prediction="flow")
def mochi():
    net = package().MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=8,
        time_embed_dim=4,
        max_sequence_length=5,
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2), fixed(x, 5, 8), 1000 * t, torch.ones(len(x), 5).bool()
        ).sample.flatten(1, 2),
    )


@film()
def allegro():
    net = package().AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=24,
        sample_width=4,
        sample_height=4,
        sample_frames=2,
        caption_channels=8,
    )

    def call(net, x, t):
        from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

        *rope, frames, rows, columns = get_3d_rotary_pos_embed_allegro(
            12, ((0, 0), (2, 2)), (2, 2), 2
        )
        grid = torch.cartesian_prod(*(axis.long() for axis in (frames, rows, columns)))
        return net(
            video(x, 2), fixed(x, 5, 8), t, image_rotary_emb=(rope, list(grid.T[:, None]))
        ).sample.flatten(1, 2)

    return Wrapped(net, call)


@film()
def latte():
    net = package().LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=16,
        sample_size=4,
        patch_size=2,
        video_length=2,
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        caption_channels=8,
        norm_elementwise_affine=False,
        activation_fn="gelu-approximate",
    )
    return Wrapped(net, lambda net, x, t: net(video(x, 2), t, fixed(x, 5, 8)).sample.flatten(1, 2))


@film(prediction="flow")
def hunyuan_video():
    net = package().HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=8,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 2, 4),
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2),
            1000 * t,
            fixed(x, 5, 8),
            torch.ones(len(x), 5).long(),
            fixed(x, 8),
            torch.full((len(x),), 6.0).to(x),
        ).sample.flatten(1, 2),
    )


@film(prediction="flow")
def cosmos():
    net = package().CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        text_embed_dim=8,
        adaln_lora_dim=4,
        max_size=(4, 8, 8),
        extra_pos_embed_type=None,
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2), t, fixed(x, 5, 8), fps=24, padding_mask=torch.zeros(1, 1, 4, 4).to(x)
        ).sample.flatten(1, 2),
    )


@film(prediction="flow")
def sana_video():
    net = package().SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=8,
        sample_size=4,
        rope_max_seq_len=32,
    )
    return Wrapped(
        net, lambda net, x, t: net(video(x, 2), fixed(x, 5, 8), 1000 * t).sample.flatten(1, 2)
    )


@film(prediction="flow")
def easyanimate():
    net = package().EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        mmdit_layers=1,
        text_embed_dim=8,
        time_embed_dim=8,
        patch_size=2,
        sample_width=4,
        sample_height=4,
    )
    return Wrapped(
        net,
        lambda net, x, t: net(
            video(x, 2), 1000 * t, encoder_hidden_states=fixed(x, 5, 8)
        ).sample.flatten(1, 2),
    )
