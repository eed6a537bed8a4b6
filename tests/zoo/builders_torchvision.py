"""Networks of torchvision, made to images."""

from functools import partial

import torch.nn.functional as F
from torch import nn

from zoo.parts import ToImage
from zoo.registry import Wrapped, entry

vision = partial(entry, "torchvision", shape=(3, 8, 8), prediction="sample", needs="torchvision")


def classifier(name, side=32, **options):
    from torchvision import models

    return ToImage(
        getattr(models, name)(weights=None, num_classes=24, **options), lambda net, x: net(x), side
    )


def _classifiers():
    kinds = {
        "resnet18": 16,
        "mobilenet_v2": 32,
        "mobilenet_v3_small": 32,
        "shufflenet_v2_x0_5": 32,
        "squeezenet1_1": 32,
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

    return ToImage(
        SwinTransformer([2, 2], 16, [2, 2], [2, 2], [2, 2], num_classes=24),
        lambda net, x: net(x),
        16,
    )


@vision()
def torchvision_swin_v2():
    from torchvision.models.swin_transformer import (
        PatchMergingV2,
        SwinTransformer,
        SwinTransformerBlockV2,
    )

    return ToImage(
        SwinTransformer(
            [2, 2],
            16,
            [2, 2],
            [2, 2],
            [2, 2],
            num_classes=24,
            block=SwinTransformerBlockV2,
            downsample_layer=PatchMergingV2,
        ),
        lambda net, x: net(x),
        16,
    )


@vision()
def torchvision_convnext():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ToImage(
        ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=24),
        lambda net, x: net(x),
        16,
    )


@vision()
def torchvision_maxvit():
    from torchvision.models.maxvit import MaxVit

    return ToImage(
        MaxVit((16, 16), 8, 2, [8, 8], [1, 1], 8, 0.0, num_classes=24), lambda net, x: net(x), 16
    )


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
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), ASPP(8, [1, 2], 8), nn.Conv2d(8, 3, 1)),
        lambda net, x, t: net(x),
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
