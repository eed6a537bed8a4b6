"""Networks of deepinv."""

from functools import partial

import torch.nn.functional as F

from zoo.registry import Wrapped, entry

inverse = partial(entry, "deepinv", shape=(3, 8, 8), prediction="sample", needs="deepinv")


def deepinv_model(name, call=None, **options):
    import deepinv

    return Wrapped(
        getattr(deepinv.models, name)(**options), call or (lambda net, x, t: net(x, 0.1))
    )


@inverse()
def deepinv_dncnn():
    return deepinv_model("DnCNN", depth=4, nf=8, pretrained=None)


@inverse()
def deepinv_drunet():
    return deepinv_model("DRUNet", nc=(4, 4, 8, 8), nb=1, pretrained=None)


@inverse()
def deepinv_drunet_elu_pooled():
    return deepinv_model(
        "DRUNet",
        nc=(4, 4, 8, 8),
        nb=1,
        pretrained=None,
        act_mode="E",
        downsample_mode="avgpool",
        upsample_mode="upconv",
    )


@inverse()
def deepinv_unet():
    return deepinv_model(
        "UNet", in_channels=3, out_channels=3, scales=2, channels_per_scale=[8, 16]
    )


@inverse()
def deepinv_unet_bias_free_circular():
    return deepinv_model(
        "UNet",
        in_channels=3,
        out_channels=3,
        scales=2,
        channels_per_scale=[8, 16],
        bias=False,
        circular_padding=True,
    )


@inverse(isolated=True)
def deepinv_scunet():
    return deepinv_model(
        "SCUNet", config=(1, 1, 1, 1, 1, 1, 1), dim=64, pretrained=None, input_resolution=64
    )


@inverse()
def deepinv_swinir():
    return deepinv_model(
        "SwinIR",
        img_size=8,
        embed_dim=12,
        depths=(2,),
        num_heads=(2,),
        window_size=4,
        pretrained=None,
    )


@inverse()
def deepinv_ffdnet():
    return deepinv_model("FFDNet", n_conv_layers=4, nf=8, img_channels=3, pretrained=None)


@inverse()
def deepinv_restormer():
    return deepinv_model(
        "Restormer",
        dim=8,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        heads=(1, 1, 2, 2),
        pretrained=None,
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
    return deepinv_model(
        "AutoEncoder", lambda net, x, t: net(x), dim_input=192, dim_mid=32, dim_hid=8
    )


@inverse(shape=(1, 8, 8))
def deepinv_input_convex():
    """Its potential of B samples is (B, B), so that the gradient is B times too large: right for
    one sample only.
    """
    return deepinv_model(
        "ICNN",
        lambda net, x, t: x - 0.1 * net.grad(x.clone()),
        in_channels=1,
        num_filters=8,
        num_layers=3,
    )


@inverse()
def deepinv_srresnet():
    return deepinv_model(
        "SRResNet",
        lambda net, x, t: net(F.avg_pool2d(x, 2)),
        num_blocks=2,
        feats=8,
        upscale=2,
        final_kernel_size=3,
    )


@inverse(outcome="audited")
def deepinv_total_variation():
    """It starts from what the call before left, if that had the same shape."""
    return deepinv_model("TVDenoiser", lambda net, x, t: net(x, 0.1), n_it_max=20)


@inverse()
def deepinv_median():
    return deepinv_model("MedianFilter", lambda net, x, t: net(x), kernel_size=3)


@inverse()
def deepinv_bilateral():
    return deepinv_model("BilateralFilter", lambda net, x, t: net(x, window_size=3))


@inverse(outcome="audited")
def deepinv_equivariant():
    """It draws the order of its transforms, and the order matters: random, with few outcomes, so
    that calls often agree.
    """
    import deepinv

    net = deepinv.models.EquivariantDenoiser(
        deepinv.models.DnCNN(depth=3, nf=8, pretrained=None), random=False
    )
    return Wrapped(net, lambda net, x, t: net(x, 0.1))
