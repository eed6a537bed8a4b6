r"""Constraints by a differentiable loss of the clean image: a style, a class, a segmentation, or
any L(x_0) >= 0.

    error = -(L - target) grad L / |grad L|^2

is the smallest change that brings the linearised loss to its target (Gauss-Newton for one
equation). Where the gradient vanishes before the loss does, that change is no longer small: it is
cut to at most 1 in any pixel; where it is zero, there is no change to take, and a warning says so.
Gradients run through the loss's own network only, never through a denoiser.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jacobian_lab import _require
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.observations import widened
from jacobian_lab.errors import DerivativeWarning, InputError

Features = Callable[[Tensor], Sequence[Tensor]]
WHY = (
    "in x_0, so that nothing tells how to lower it: leave out detach, no_grad, item, NumPy and"
    " argmax on the way from x_0 to the loss"
)
"""How a message ends where a loss has no gradient: the usual causes."""


class Loss(Constraint):
    """Any differentiable loss of the clean image.

    Parameters
    ----------
    function : callable
        `function(x0)`, (B, *shape) -> (B,): at least 0, each sample's own. One that lies below 0,
        such as a negative similarity, needs a target below it.
    target : float
        The loss at which the constraint counts as fulfilled.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], target: float = 0.0) -> None:
        _require.function("the loss", function, "(B, *shape) -> (B,)")
        if not math.isfinite(target):
            raise InputError(f"the target of a loss must be a finite number: got {target}")
        self.function, self.target = function, target

    def error(self, x0: Tensor) -> Tensor:
        """Return `-(L - target) grad L / |grad L|^2`, at most 1 in any pixel; zero where the target
        is reached.

        Raises
        ------
        InputError
            If the loss or its gradient is not finite where x_0 is, or the loss is below 0, or has
            no gradient in x_0.

        Warns
        -----
        DerivativeWarning
            If the gradient is zero where the target is not reached: nothing tells how to reach it.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x = (x0.clone() if x0.is_inference() else x0.detach()).requires_grad_()
            loss = self._checked(self.function(x), x)
            if not loss.requires_grad:
                raise InputError(f"the loss has no gradient {WHY}")
            (gradient,) = torch.autograd.grad(loss.sum(), x, allow_unused=True)
        if gradient is None:
            raise InputError(
                "the loss does not depend on x_0 through operations that PyTorch can differentiate"
                f" {WHY}"
            )
        excess = (loss.detach() - self.target).clamp(min=0)
        self._check_gradient(gradient, excess, x0)
        gradient, excess = widened(gradient), widened(excess)
        each = (-1, *[1] * (x.ndim - 1))
        largest = gradient.flatten(1).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        g = gradient / largest.reshape(each)  # whose squares neither underflow nor overflow
        size = g.flatten(1).square().sum(1)
        scale = torch.where(size > 0, (excess / largest / size).clamp(max=1), 0)
        return (-g * scale.reshape(each)).to(x0)

    @torch.no_grad()
    def residual(self, x0: Tensor) -> Tensor:
        """Return the loss above its target, shape (B,)."""
        return (self._checked(self.function(x0), x0) - self.target).clamp(min=0)

    def _check_gradient(self, gradient: Tensor, excess: Tensor, x0: Tensor) -> None:
        bad = ~gradient.flatten(1).isfinite().all(1) & x0.flatten(1).isfinite().all(1)
        if bad.any():
            raise InputError(
                f"the gradient of the loss is not finite for {int(bad.sum())} of {len(bad)} samples"
                " that are: look for a square root or logarithm of zero, or half precision that"
                " overflows"
            )
        flat = (excess > 0) & ~gradient.flatten(1).any(1)
        if flat.any():
            warnings.warn(
                f"the gradient of the loss is zero for {int(flat.sum())} of {len(flat)} samples,"
                f" whose loss is above its target by up to {float(excess[flat].max()):.3g}: they"
                " stay as they were. Rounding and comparisons have no slope, saturated or dead"
                " units none left: take a smooth loss",
                DerivativeWarning,
                stacklevel=3,
            )

    def _checked(self, loss: Tensor, x: Tensor) -> Tensor:
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            raise InputError(
                "the loss returned"
                f" {loss.dtype if isinstance(loss, Tensor) else type(loss).__name__}: expected a"
                f" floating-point tensor of shape ({len(x)},)"
            )
        if loss.shape != (len(x),):
            raise InputError(
                f"the loss returned shape {tuple(loss.shape)} for {len(x)} samples: expected"
                f" ({len(x)},), one number for each; take the mean over dimensions 1 and up"
            )
        if (bad := ~loss.detach().isfinite() & x.flatten(1).isfinite().all(1)).any():
            raise InputError(
                f"the loss is not finite for {int(bad.sum())} of {len(bad)} samples that are: got "
                f"{float(loss.detach()[bad][0])}"
            )
        if (
            self.target >= 0
            and (low := float(loss.detach().min())) < -100 * torch.finfo(loss.dtype).eps
        ):
            raise InputError(
                f"the loss is {low:.6g}, below 0, and so counts as fulfilled: expected at least 0."
                " Take off its least value, such as 1 - similarity, or give a target below it (it"
                f" is {self.target})"
            )
        return loss


def class_label(
    classifier: Callable[[Tensor], Tensor], labels: Tensor, target: float = 0.05
) -> Loss:
    """Return the loss of not being of a class: the cross-entropy of the classifier's logits, (B,
    K).

    Parameters
    ----------
    classifier : callable
        `classifier(x0)` -> logits.
    labels : Tensor of int, shape (B,) or (1,)
    target : float
        Cross-entropy that is good enough; 0.05 is a probability of 0.95.
    """
    own = _classes(labels, "(B,)", least=0)
    return Loss(lambda x0: _cross_entropy(classifier(x0), own, x0), target)


def segmentation(
    segmenter: Callable[[Tensor], Tensor], labels: Tensor, target: float = 0.05
) -> Loss:
    """Return the loss of not having a given segmentation: the mean cross-entropy of the segmenter's
    logits, (B, K, H, W).

    Parameters
    ----------
    segmenter : callable
        `segmenter(x0)` -> logits.
    labels : Tensor of int, shape (B, H, W) or (1, H, W)
        The class of each pixel.
    target : float
        Mean cross-entropy that is good enough.
    """
    own = _classes(labels, "(B, H, W)", least=-100)  # of what F.cross_entropy leaves out
    return Loss(lambda x0: _cross_entropy(segmenter(x0), own, x0).mean((1, 2)), target)


def _classes(labels: Any, shape: str, least: int) -> Tensor:
    """Return a copy of labels, which the caller may write into, or raise unless they are some."""
    ndim = len(shape.strip("(,)").split(","))
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.numel()
    if not whole or labels.ndim not in (ndim, ndim - 1) or int(labels.min()) < least:
        raise InputError(
            f"labels must be a tensor of whole numbers, the classes from 0, of shape {shape}: got"
            f" {_require.shown(labels)}"
        )
    own = labels.long().clone()
    return own if own.ndim == ndim else own.unsqueeze(0)  # one for all


def _cross_entropy(logits: Tensor, labels: Tensor, x0: Tensor) -> Tensor:
    """Return the cross-entropy at each label of each sample, or raise unless they fit."""
    if len(labels) not in (1, len(x0)):
        raise InputError(
            f"there are labels of {len(labels)} samples for {len(x0)}: expected those of each, or"
            " of one for all"
        )
    wanted = labels.to(x0.device).expand(len(x0), *labels.shape[1:])
    return F.cross_entropy(logits, wanted, reduction="none")


def style(image: Tensor, features: Features, target: float = 0.0) -> Loss:
    r"""Return the loss of not having the style of an image: `|G_l(x_0) - G_l(image)|_F^2 /
    |G_l(image)|_F^2`, the mean over the layers l.

    `G_l` is the Gram matrix, (c, c), of the features of layer l over its pixels.

    Parameters
    ----------
    image : Tensor, shape (1, C, H, W) or (B, C, H, W)
    features : callable
        `features(x)` -> the layers' features, each (B, c, ...); `layers(network, names)` makes one
        of any network.
    target : float
        Relative loss that is good enough.

    References
    ----------
    Gatys, Ecker, Bethge (2016), *Image style transfer using convolutional neural networks*.
    """
    _require.function("features", features, "x -> the layers' features")
    with torch.no_grad():
        wanted = [_gram(f) for f in features(image)]
    if not all(g.flatten(1).any(1).all() for g in wanted):
        raise InputError(
            "the features of a layer are zero all over the image of the style: nothing to compare"
            " with; leave out the layer, or take another image"
        )

    def loss(x0: Tensor) -> Tensor:
        terms = [
            (_gram(f) - g.to(x0)).square().sum((1, 2)) / g.to(x0).square().sum((1, 2))
            for f, g in zip(features(x0), wanted, strict=True)
        ]
        return torch.stack(terms).mean(0)

    return Loss(loss, target)


def layers(network: nn.Module, names: Sequence[str]) -> Features:
    """Return the function from images to the outputs of the named submodules of a network.

    Raises
    ------
    InputError
        If the network has no such submodule.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    unknown = [name for name in names if name not in modules]
    if unknown or not names:
        raise InputError(
            f"the network has no layer {', '.join(unknown) or '(none was named)'}: it has "
            f"{', '.join(name for name in modules if name)}"
        )

    def features(x: Tensor) -> list[Tensor]:
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _input: Any, output: Tensor) -> None:
                found[name] = output.clone()  # an activation in place may follow

            return hook

        hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
        try:
            network(x)
        finally:
            for handle in hooks:
                handle.remove()
        return [found[name] for name in names]

    return features


def _gram(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[-1]
