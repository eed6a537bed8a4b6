"""Networks of timm, made to images."""

from functools import partial

from zoo.parts import ToImage
from zoo.registry import entry

timm_model = partial(entry, "timm", shape=(3, 8, 8), prediction="v", needs="timm")


def timm_backbone(name, side=32, **options):
    import timm

    return ToImage(timm.create_model(name, num_classes=24, **options), lambda net, x: net(x), side)


TIMM = {
    "timm_vit": (
        "vit_tiny_patch16_224",
        16,
        {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3},
    ),
    "timm_xcit": (
        "xcit_nano_12_p8_224",
        16,
        {"img_size": 16, "depth": 2, "embed_dim": 32, "num_heads": 4},
    ),
    "timm_cait": (
        "cait_xxs24_224",
        32,
        {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 3},
    ),
    "timm_beit_v2": (
        "beitv2_base_patch16_224",
        16,
        {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3},
    ),
    "timm_eva02": (
        "eva02_tiny_patch14_224",
        28,
        {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 3},
    ),
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
