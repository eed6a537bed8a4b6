"""Networks of azula."""

from functools import partial

import torch

from zoo.registry import Wrapped, entry, fixed, image, tokens

azula_net = partial(entry, "azula", shape=(4, 8, 8), prediction="epsilon", needs="azula")


@azula_net()
def azula_unet_plain():
    from azula.nn.unet import UNet

    return Wrapped(
        UNet(4, 4, hid_channels=(8, 16), hid_blocks=(1, 1), mod_features=8),
        lambda net, x, t: net(x, fixed(x, 8)),
    )


@azula_net()
def azula_unet_periodic():
    from azula.nn.unet import UNet

    return Wrapped(
        UNet(
            4,
            4,
            hid_channels=(8, 16),
            hid_blocks=(1, 1),
            mod_features=8,
            periodic=True,
            identity_init=True,
        ),
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

    net = ViT(
        4,
        4,
        mod_features=8,
        hid_channels=16,
        hid_blocks=2,
        patch_size=2,
        attention_heads=2,
        **options,
    )
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
