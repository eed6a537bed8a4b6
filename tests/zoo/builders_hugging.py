"""Backbones of transformers, made to images or run over patches."""

from functools import partial

from zoo.parts import ToImage
from zoo.registry import Wrapped, entry, image, tokens

hugging = partial(
    entry, "transformers", shape=(3, 8, 8), prediction="epsilon", needs="transformers"
)


def hf(config, model, call, side=None, **options):
    import transformers

    net = getattr(transformers, model)(getattr(transformers, config)(**options))
    return ToImage(net, call, side)


VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 2,
}


def last(net, x):
    return net(pixel_values=x).last_hidden_state


@hugging()
def hf_vit():
    return hf("ViTConfig", "ViTModel", last, **VIT)


@hugging()
def hf_vit_eager_attention():
    return hf("ViTConfig", "ViTModel", last, attn_implementation="eager", **VIT)


@hugging()
def hf_deit():
    return hf("DeiTConfig", "DeiTModel", last, **VIT)


@hugging()
def hf_beit():
    return hf("BeitConfig", "BeitModel", last, **VIT, use_relative_position_bias=True)


@hugging()
def hf_dinov2():
    return hf(
        "Dinov2Config",
        "Dinov2Model",
        last,
        **{k: v for k, v in VIT.items() if k != "intermediate_size"},
    )


@hugging()
def hf_clip_vision():
    return hf("CLIPVisionConfig", "CLIPVisionModel", last, **VIT)


@hugging()
def hf_siglip_vision():
    return hf("SiglipVisionConfig", "SiglipVisionModel", last, **VIT)


@hugging()
def hf_swin():
    return hf(
        "SwinConfig",
        "SwinModel",
        last,
        image_size=8,
        patch_size=2,
        embed_dim=8,
        depths=[2],
        num_heads=[2],
        window_size=2,
    )


@hugging()
def hf_swinv2():
    return hf(
        "Swinv2Config",
        "Swinv2Model",
        last,
        image_size=8,
        patch_size=2,
        embed_dim=8,
        depths=[2],
        num_heads=[2],
        window_size=2,
    )


@hugging()
def hf_swin2sr():
    return hf(
        "Swin2SRConfig",
        "Swin2SRModel",
        last,
        image_size=8,
        patch_size=1,
        embed_dim=8,
        depths=[2],
        num_heads=[2],
        window_size=4,
    )


@hugging()
def hf_segformer():
    return hf(
        "SegformerConfig",
        "SegformerModel",
        last,
        16,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    )


@hugging()
def hf_convnext():
    return hf(
        "ConvNextConfig",
        "ConvNextModel",
        last,
        16,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
    )


@hugging()
def hf_convnextv2():
    return hf(
        "ConvNextV2Config",
        "ConvNextV2Model",
        last,
        16,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_stages=2,
    )


@hugging()
def hf_resnet():
    return hf(
        "ResNetConfig",
        "ResNetModel",
        last,
        16,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
    )


@hugging()
def hf_poolformer():
    return hf(
        "PoolFormerConfig",
        "PoolFormerModel",
        last,
        16,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        num_encoder_blocks=2,
        patch_sizes=[3, 3],
        strides=[2, 2],
        padding=[1, 1],
    )


@hugging()
def hf_mobilenet_v2():
    return hf("MobileNetV2Config", "MobileNetV2Model", last, 32, depth_multiplier=0.25)


@hugging()
def hf_pvt_v2():
    return hf(
        "PvtV2Config",
        "PvtV2Model",
        last,
        16,
        image_size=16,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    )


@hugging()
def hf_perceiver_like_bert():
    """A text encoder over patches given as embeddings."""
    import transformers

    net = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=8,
            hidden_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
        )
    )
    return Wrapped(
        net, lambda net, x, t: image(net(inputs_embeds=tokens(x, 2)).last_hidden_state, x, 2)
    )


def over_embeddings(config, model, **options):
    import transformers

    given = {
        "vocab_size": 8,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    net = getattr(transformers, model)(getattr(transformers, config)(**{**given, **options}))
    return Wrapped(
        net,
        lambda net, x, t: image(
            net(inputs_embeds=tokens(x, 2).contiguous(), use_cache=False).last_hidden_state, x, 2
        ),
    )


@hugging()
def hf_llama_over_patches():
    return over_embeddings(
        "LlamaConfig", "LlamaModel", num_key_value_heads=1, head_dim=8, pad_token_id=0
    )


@hugging()
def hf_gpt2_over_patches():
    import transformers

    net = transformers.GPT2Model(
        transformers.GPT2Config(
            vocab_size=8,
            n_positions=16,
            n_embd=12,
            n_layer=1,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    return Wrapped(
        net,
        lambda net, x, t: image(
            net(inputs_embeds=tokens(x, 2).contiguous(), use_cache=False).last_hidden_state, x, 2
        ),
    )


@hugging()
def hf_mixtral_over_patches():
    return over_embeddings(
        "MixtralConfig",
        "MixtralModel",
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=3,
        experts_implementation="eager",
        num_experts_per_tok=2,
        pad_token_id=0,
    )


@hugging()
def hf_mamba_over_patches():
    import transformers

    net = transformers.MambaModel(
        transformers.MambaConfig(vocab_size=8, hidden_size=12, state_size=4, num_hidden_layers=1)
    )
    return Wrapped(
        net,
        lambda net, x, t: image(
            net(inputs_embeds=tokens(x, 2).contiguous(), use_cache=False).last_hidden_state, x, 2
        ),
    )


@hugging()
def hf_fnet_over_patches():
    import transformers

    net = transformers.FNetModel(
        transformers.FNetConfig(
            vocab_size=8, hidden_size=12, num_hidden_layers=1, intermediate_size=24
        )
    )
    return Wrapped(
        net, lambda net, x, t: image(net(inputs_embeds=tokens(x, 2)).last_hidden_state, x, 2)
    )
