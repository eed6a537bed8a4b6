"""Transformers of diffusers of the years of flows."""

from functools import partial

import torch

from zoo.builders_unet2d import package
from zoo.registry import Wrapped, entry, fixed, image, tokens

dit = partial(entry, "diffusers transformer", needs="diffusers")


@dit(prediction="flow")
def auraflow():
    net = package().AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=16,
        pos_embed_max_size=16,
    )
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t).sample)


@dit()
def hunyuan_dit():
    net = package().HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=16,
        num_layers=2,
        cross_attention_dim=8,
        cross_attention_dim_t5=8,
        pooled_projection_dim=8,
        text_len=4,
        text_len_t5=4,
    )

    def call(net, x, t):
        from diffusers.models.embeddings import get_2d_rotary_pos_embed

        ones = torch.ones(len(x), 4).to(x)
        rope = get_2d_rotary_pos_embed(8, ((0, 0), (4, 4)), (4, 4), output_type="pt")
        return net(
            x,
            t.to(x),
            encoder_hidden_states=fixed(x, 4, 8),
            text_embedding_mask=ones,
            encoder_hidden_states_t5=fixed(x, 4, 8).contiguous(),
            text_embedding_mask_t5=ones,
            image_meta_size=fixed(x, 6).abs(),
            style=torch.zeros(len(x)).long(),
            image_rotary_emb=rope,
        ).sample.chunk(2, 1)[0]

    return Wrapped(net, call)


@dit(prediction="flow")
def lumina_next():
    net = package().LuminaNextDiT2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        cross_attention_dim=8,
        learn_sigma=True,
    )

    def call(net, x, t):
        from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

        rope = get_2d_rotary_pos_embed_lumina(8, 16, 16)
        return net(
            x, t, fixed(x, 5, 8), torch.ones(len(x), 5).to(x), rope, cross_attention_kwargs={}
        ).sample.chunk(2, 1)[0]

    return Wrapped(net, call)


@dit(prediction="flow")
def lumina2():
    net = package().Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(32, 32, 32),
        cap_feat_dim=8,
    )
    return Wrapped(
        net, lambda net, x, t: net(x, t, fixed(x, 5, 8), torch.ones(len(x), 5).bool()).sample
    )


def sana(**options):
    net = package().SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=8,
        sample_size=8,
        **options,
    )
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t).sample)


@dit(prediction="flow")
def sana_linear_attention():
    return sana()


@dit(prediction="flow")
def sana_qk_norm():
    return sana(qk_norm="rms_norm_across_heads")


def sizes(x):
    return {
        name: torch.full((len(x), 2), 8.0 if "size" in name else 0.0).to(x)
        for name in ("original_size", "target_size", "crop_coords")
    }


COGVIEW = {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "text_embed_dim": 8,
    "time_embed_dim": 8,
    "condition_dim": 4,
    "sample_size": 8,
}


@dit(prediction="v")
def cogview3():
    net = package().CogView3PlusTransformer2DModel(pos_embed_max_size=8, **COGVIEW)
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t, **sizes(x)).sample)


@dit(prediction="flow")
def cogview4():
    net = package().CogView4Transformer2DModel(
        pos_embed_max_size=8, rope_axes_dim=(8, 8), **COGVIEW
    )
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 5, 8), t, **sizes(x)).sample)


@dit(prediction="flow")
def qwen_image():
    net = package().QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    return Wrapped(
        net,
        lambda net, x, t: image(
            net(
                tokens(x, 2),
                fixed(x, 5, 8),
                torch.ones(len(x), 5).long(),
                t,
                img_shapes=[[(1, 4, 4)]] * len(x),
            ).sample,
            x,
            2,
        ),
    )


@dit(prediction="flow")
def z_image():
    net = package().ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=8,
        axes_dims=[4, 2, 2],
        axes_lens=[64, 16, 16],
    )
    return Wrapped(
        net,
        lambda net, x, t: torch.stack(net(list(x[:, :, None]), t, list(fixed(x, 5, 8))).sample)[
            :, :, 0
        ],
    )


@dit(prediction="flow")
def hidream():
    net = package().HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[8, 8],
        text_emb_dim=8,
        num_routed_experts=3,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8),
        llama_layers=[0, 1],
    )
    return Wrapped(
        net,
        lambda net, x, t: (
            net(x, t, fixed(x, 5, 8), fixed(x, 2, 5, 8).transpose(0, 1), fixed(x, 8)).sample
        ),
    )


@dit(prediction="flow")
def omnigen():
    net = package().OmniGenTransformer2DModel(
        in_channels=4,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        num_layers=1,
        pad_token_id=0,
        vocab_size=16,
        max_position_embeddings=64,
        original_max_position_embeddings=64,
        rope_scaling={"long_factor": [1, 2, 3, 4], "short_factor": [1, 1, 1, 1]},
        pos_embed_max_size=8,
        time_step_dim=16,
    )

    def call(net, x, t):
        total = 4 + 1 + 16  # text, time, patches
        mask = torch.ones(len(x), total, total).to(x)
        return net(
            x, t, torch.ones(len(x), 4).long(), [], {}, mask, torch.arange(total).expand(len(x), -1)
        ).sample

    return Wrapped(net, call)


@dit(prediction="flow")
def prx():
    net = package().PRXTransformer2DModel(
        in_channels=4,
        context_in_dim=8,
        hidden_size=16,
        mlp_ratio=2,
        num_heads=2,
        depth=2,
        axes_dim=[4, 4],
    )
    return Wrapped(net, lambda net, x, t: net(x, t, fixed(x, 5, 8)).sample)


@dit(prediction="flow")
def hunyuan_image():
    net = package().HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(2, 2),
        text_embed_dim=8,
        rope_axes_dim=(4, 4),
    )
    return Wrapped(
        net, lambda net, x, t: net(x, 1000 * t, fixed(x, 5, 8), torch.ones(len(x), 5).long()).sample
    )
