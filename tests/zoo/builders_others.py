"""Networks of torchvision, transformers, timm, azula and deepinv, of tiny sizes, made to images where they are classifiers."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from zoo.registry import Wrapped, entry, fixed, image, tokens

vision = partial(entry, "torchvision", shape=(3, 8, 8), prediction="sample", needs="torchvision")
hugging = partial(entry, "transformers", shape=(3, 8, 8), prediction="epsilon", needs="transformers")
timm_model = partial(entry, "timm", shape=(3, 8, 8), prediction="v", needs="timm")
azula_net = partial(entry, "azula", shape=(4, 8, 8), prediction="epsilon", needs="azula")
inverse = partial(entry, "deepinv", shape=(3, 8, 8), prediction="sample", needs="deepinv")


class ToImage(nn.Module):
    """Features of a backbone, whatever their shape, by a fixed linear head to an image: (B, ...) -> (B, C, H, W)."""

    def __init__(self, backbone, features, side=None):
        super().__init__()
        self.backbone, self.features, self.side, self.head = backbone, features, side, None
        with torch.no_grad():
            found = self.features(backbone.eval(), torch.zeros(2, 3, side or 8, side or 8))
        self.head = nn.Linear(found[0].numel(), 192)

    def forward(self, x, t):
        large = x if self.side is None else F.interpolate(x, size=(self.side, self.side), mode="bilinear")
        return self.head(self.features(self.backbone, large).flatten(1)).reshape(x.shape)


# ---- torchvision -----------------------------------------------------------------------------------------------------


def classifier(name, side=32, **options):
    from torchvision import models

    return ToImage(getattr(models, name)(weights=None, num_classes=24, **options), lambda net, x: net(x), side)


def _classifiers():
    kinds = {
        "resnet18": 16,
        "mobilenet_v2": 32,
        "mobilenet_v3_small": 32,
        "shufflenet_v2_x0_5": 32,
        "squeezenet1_1": 32,
        "mnasnet0_5": 32,
        "efficientnet_b0": 32,
        "regnet_x_400mf": 32,
    }
    for name, side in kinds.items():

        def build(name=name, side=side):
            return classifier(name, side)

        build.__name__ = f"torchvision_{name}"
        vision()(build)


_classifiers()


@vision()
def torchvision_vit():
    from torchvision.models.vision_transformer import VisionTransformer

    return ToImage(VisionTransformer(8, 2, 2, 2, 16, 32, num_classes=24), lambda net, x: net(x))


@vision()
def torchvision_swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return ToImage(SwinTransformer([2, 2], 16, [2, 2], [2, 2], [2, 2], num_classes=24), lambda net, x: net(x), 16)


@vision()
def torchvision_swin_v2():
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    return ToImage(
        SwinTransformer(
            [2, 2], 16, [2, 2], [2, 2], [2, 2], num_classes=24, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
        ),
        lambda net, x: net(x),
        16,
    )


@vision()
def torchvision_convnext():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ToImage(ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=24), lambda net, x: net(x), 16)


@vision()
def torchvision_maxvit():
    from torchvision.models.maxvit import MaxVit

    return ToImage(MaxVit((16, 16), 8, 2, [8, 8], [1, 1], 8, 0.0, num_classes=24), lambda net, x: net(x), 16)


@vision()
def torchvision_fcn():
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    body = nn.ModuleDict({"layer": nn.Conv2d(3, 16, 3, stride=2, padding=1)})
    backbone = Wrapped(body, lambda net, x, t=None: {"out": F.relu(net["layer"](x))})
    backbone.forward = lambda x: {"out": F.relu(body["layer"](x))}
    return Wrapped(FCN(backbone, FCNHead(16, 3)), lambda net, x, t: net(x)["out"])


@vision()
def torchvision_deeplab():
    from torchvision.models.segmentation.deeplabv3 import ASPP

    return Wrapped(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), ASPP(8, [1, 2], 8), nn.Conv2d(8, 3, 1)), lambda net, x, t: net(x)
    )


@vision()
def torchvision_feature_pyramid():
    from torchvision.ops import FeaturePyramidNetwork

    net = nn.ModuleList(
        [
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            FeaturePyramidNetwork([8, 8], 8),
            nn.Conv2d(8, 3, 1),
        ]
    )

    def call(net, x, t):
        a = net[0](x).tanh()
        return net[3](net[2]({"a": a, "b": net[1](a)})["a"])

    return Wrapped(net, call)


@vision()
def torchvision_deformable_convolution():
    from torchvision.ops import DeformConv2d

    net = nn.ModuleList([nn.Conv2d(3, 18, 3, padding=1), DeformConv2d(3, 3, 3, padding=1)])
    return Wrapped(net, lambda net, x, t: net[1](x, net[0](x).tanh() * 0.4))


# ---- transformers --------------------------------------------------------------------------------------------------------


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
    return hf("Dinov2Config", "Dinov2Model", last, **{k: v for k, v in VIT.items() if k != "intermediate_size"})


@hugging()
def hf_clip_vision():
    return hf("CLIPVisionConfig", "CLIPVisionModel", last, **VIT)


@hugging()
def hf_siglip_vision():
    return hf("SiglipVisionConfig", "SiglipVisionModel", last, **VIT)


@hugging()
def hf_swin():
    return hf(
        "SwinConfig", "SwinModel", last, image_size=8, patch_size=2, embed_dim=8, depths=[2], num_heads=[2], window_size=2
    )


@hugging()
def hf_swinv2():
    return hf(
        "Swinv2Config", "Swinv2Model", last, image_size=8, patch_size=2, embed_dim=8, depths=[2], num_heads=[2], window_size=2
    )


@hugging()
def hf_swin2sr():
    return hf(
        "Swin2SRConfig", "Swin2SRModel", last, image_size=8, patch_size=1, embed_dim=8, depths=[2], num_heads=[2], window_size=4
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
    return hf("ConvNextConfig", "ConvNextModel", last, 16, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)


@hugging()
def hf_convnextv2():
    return hf("ConvNextV2Config", "ConvNextV2Model", last, 16, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)


@hugging()
def hf_resnet():
    return hf(
        "ResNetConfig", "ResNetModel", last, 16, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
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
        transformers.BertConfig(vocab_size=8, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    )
    return Wrapped(net, lambda net, x, t: image(net(inputs_embeds=tokens(x, 2)).last_hidden_state, x, 2))


def over_embeddings(config, model, **options):
    import transformers

    given = {"vocab_size": 8, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    net = getattr(transformers, model)(getattr(transformers, config)(**{**given, **options}))
    return Wrapped(
        net, lambda net, x, t: image(net(inputs_embeds=tokens(x, 2).contiguous(), use_cache=False).last_hidden_state, x, 2)
    )


@hugging()
def hf_llama_over_patches():
    return over_embeddings("LlamaConfig", "LlamaModel", num_key_value_heads=1, head_dim=8, pad_token_id=0)


@hugging()
def hf_gpt2_over_patches():
    import transformers

    net = transformers.GPT2Model(
        transformers.GPT2Config(vocab_size=8, n_positions=16, n_embd=12, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    )
    return Wrapped(
        net, lambda net, x, t: image(net(inputs_embeds=tokens(x, 2).contiguous(), use_cache=False).last_hidden_state, x, 2)
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

    net = transformers.MambaModel(transformers.MambaConfig(vocab_size=8, hidden_size=12, state_size=4, num_hidden_layers=1))
    return Wrapped(
        net, lambda net, x, t: image(net(inputs_embeds=tokens(x, 2).contiguous(), use_cache=False).last_hidden_state, x, 2)
    )


@hugging()
def hf_fnet_over_patches():
    import transformers

    net = transformers.FNetModel(
        transformers.FNetConfig(vocab_size=8, hidden_size=12, num_hidden_layers=1, intermediate_size=24)
    )
    return Wrapped(net, lambda net, x, t: image(net(inputs_embeds=tokens(x, 2)).last_hidden_state, x, 2))


# ---- timm ------------------------------------------------------------------------------------------------------------------


def timm_backbone(name, side=32, **options):
    import timm

    return ToImage(timm.create_model(name, num_classes=24, **options), lambda net, x: net(x), side)


TIMM = {
    "timm_vit": ("vit_tiny_patch16_224", 16, {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}),
    "timm_xcit": ("xcit_nano_12_p8_224", 16, {"img_size": 16, "depth": 2, "embed_dim": 32, "num_heads": 4}),
    "timm_cait": ("cait_xxs24_224", 32, {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3}),
    "timm_beit_v2": (
        "beitv2_base_patch16_224",
        16,
        {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3},
    ),
    "timm_eva02": ("eva02_tiny_patch14_224", 28, {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 3}),
    "timm_mixer": ("mixer_s32_224", 64, {"img_size": 64}),
    "timm_resnet_narrow": ("resnet10t", 32, {}),
    "timm_ghostnet": ("ghostnet_050", 32, {}),
    "timm_lcnet": ("lcnet_035", 32, {}),
    "timm_mobilevit": ("mobilevit_xxs", 32, {}),
    "timm_edgenext": ("edgenext_xx_small", 32, {}),
    "timm_gernet": ("tinynet_e", 32, {}),
    "timm_repvit": ("repvit_m0_9", 32, {}),
}


def _timm():
    for name, (model, side, options) in TIMM.items():

        def build(model=model, side=side, options=options):
            return timm_backbone(model, side, **options)

        build.__name__ = name
        timm_model()(build)


_timm()


# ---- azula ----------------------------------------------------------------------------------------------------------------


@azula_net()
def azula_unet_plain():
    from azula.nn.unet import UNet

    return Wrapped(UNet(4, 4, hid_channels=(8, 16), hid_blocks=(1, 1), mod_features=8), lambda net, x, t: net(x, fixed(x, 8)))


@azula_net()
def azula_unet_periodic():
    from azula.nn.unet import UNet

    return Wrapped(
        UNet(4, 4, hid_channels=(8, 16), hid_blocks=(1, 1), mod_features=8, periodic=True, identity_init=True),
        lambda net, x, t: net(x, fixed(x, 8)),
    )


@azula_net()
def azula_unet_checkpointed():
    from azula.nn.unet import UNet

    return Wrapped(
        UNet(4, 4, hid_channels=(8, 16), hid_blocks=(1, 1), mod_features=8, checkpointing=True),
        lambda net, x, t: net(x, fixed(x, 8)),
    )


def azula_vit(**options):
    from azula.nn.vit import ViT

    net = ViT(4, 4, mod_features=8, hid_channels=16, hid_blocks=2, patch_size=2, attention_heads=2, **options)
    return Wrapped(net, lambda net, x, t: net(x, fixed(x, 8)))


@azula_net()
def azula_vit_plain():
    return azula_vit()


@azula_net()
def azula_vit_swiglu():
    return azula_vit(ffn_activation="swiglu")


@azula_net()
def azula_vit_relu_squared():
    return azula_vit(ffn_activation="relu2")


@azula_net()
def azula_vit_checkpointed():
    return azula_vit(checkpointing=True)


@azula_net()
def azula_dit():
    from azula.nn.dit import DiT

    net = DiT(16, 16, mod_features=8, hid_channels=16, hid_blocks=2, attention_heads=2)
    return Wrapped(net, lambda net, x, t: image(net(tokens(x, 2), fixed(x, 8)), x, 2))


@azula_net(prediction="sample")
def azula_simple_denoiser():
    """Its own denoiser, mean of a Gaussian posterior, at a time of its own."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule

    net = azula_vit().net
    backbone = Wrapped(net, None)
    backbone.forward = lambda x, t, **_: net(x, fixed(x, 8))
    denoiser = KarrasDenoiser(backbone, VPSchedule())
    return Wrapped(denoiser, lambda net, x, t: net(x, torch.tensor(0.5).to(x)).mean)


# ---- deepinv ---------------------------------------------------------------------------------------------------------------


def deepinv_model(name, call=None, **options):
    import deepinv

    return Wrapped(getattr(deepinv.models, name)(**options), call or (lambda net, x, t: net(x, 0.1)))


@inverse()
def deepinv_dncnn():
    return deepinv_model("DnCNN", depth=4, nf=8, pretrained=None)


@inverse()
def deepinv_drunet():
    return deepinv_model("DRUNet", nc=(4, 4, 8, 8), nb=1, pretrained=None)


@inverse()
def deepinv_drunet_elu_pooled():
    return deepinv_model(
        "DRUNet", nc=(4, 4, 8, 8), nb=1, pretrained=None, act_mode="E", downsample_mode="avgpool", upsample_mode="upconv"
    )


@inverse()
def deepinv_unet():
    return deepinv_model("UNet", in_channels=3, out_channels=3, scales=2, channels_per_scale=[8, 16])


@inverse()
def deepinv_unet_bias_free_circular():
    return deepinv_model(
        "UNet", in_channels=3, out_channels=3, scales=2, channels_per_scale=[8, 16], bias=False, circular_padding=True
    )


@inverse()
def deepinv_scunet():
    return deepinv_model("SCUNet", config=(1, 1, 1, 1, 1, 1, 1), dim=64, pretrained=None, input_resolution=64)


@inverse()
def deepinv_swinir():
    return deepinv_model("SwinIR", img_size=8, embed_dim=12, depths=(2,), num_heads=(2,), window_size=4, pretrained=None)


@inverse()
def deepinv_ffdnet():
    return deepinv_model("FFDNet", n_conv_layers=4, nf=8, img_channels=3, pretrained=None)


@inverse()
def deepinv_restormer():
    return deepinv_model(
        "Restormer", dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1, 1, 2, 2), pretrained=None
    )


def ncsnpp(coarse=True, **options):
    network = deepinv_model(
        "NCSNpp",
        model_channels=32,
        channel_mult=(1, 2),
        num_blocks=1,
        img_resolution=8,
        attn_resolutions=(4,),
        pretrained=None,
        **options,
    )
    network.net.coarse = coarse  # it casts its input to float32, and takes no other weights
    return network


@inverse(twin=lambda: ncsnpp(False))
def deepinv_ncsnpp():
    return ncsnpp()


@inverse(twin=lambda: ncsnpp(False, model_type="ddpm"))
def deepinv_ncsnpp_ddpm():
    return ncsnpp(model_type="ddpm")


@inverse()
def deepinv_autoencoder():
    return deepinv_model("AutoEncoder", lambda net, x, t: net(x), dim_input=192, dim_mid=32, dim_hid=8)


@inverse(shape=(1, 8, 8))
def deepinv_input_convex():
    """Its potential of B samples is (B, B), so that the gradient is B times too large: right for one sample only."""
    return deepinv_model("ICNN", lambda net, x, t: x - 0.1 * net.grad(x.clone()), in_channels=1, num_filters=8, num_layers=3)


@inverse()
def deepinv_srresnet():
    return deepinv_model(
        "SRResNet", lambda net, x, t: net(F.avg_pool2d(x, 2)), num_blocks=2, feats=8, upscale=2, final_kernel_size=3
    )


@inverse()
def deepinv_total_variation():
    return deepinv_model("TVDenoiser", lambda net, x, t: net(x, 0.1), n_it_max=20)


@inverse()
def deepinv_median():
    return deepinv_model("MedianFilter", lambda net, x, t: net(x), kernel_size=3)


@inverse()
def deepinv_bilateral():
    return deepinv_model("BilateralFilter", lambda net, x, t: net(x, window_size=3))


@inverse()
def deepinv_equivariant():
    import deepinv

    net = deepinv.models.EquivariantDenoiser(deepinv.models.DnCNN(depth=3, nf=8, pretrained=None), random=False)
    return Wrapped(net, lambda net, x, t: net(x, 0.1))
