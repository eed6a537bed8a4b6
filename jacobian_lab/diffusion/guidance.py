"""Classifier-free guidance: two networks become one."""

from __future__ import annotations

from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.denoiser import Network, unwrapped


def guided(conditional: Network, unconditional: Network, scale: float) -> Network:
    """Return classifier-free guidance as a network: `F_uncond + scale (F_cond - F_uncond)`; scale 1
    means off.

    The raw outputs are combined, as in diffusers; for every prediction type that equals combining
    the posterior means. Scale 1 calls the conditional network only and equals it exactly.

    Parameters
    ----------
    conditional, unconditional : callable
        Networks `(x, t) -> raw output` of one prediction type.
    scale : float
        Guidance scale; 0 is the unconditional network, 1 the conditional one.

    References
    ----------
    Ho, Salimans (2022), *Classifier-free diffusion guidance*, in the convention of diffusers.
    """
    for name, network in (("conditional", conditional), ("unconditional", unconditional)):
        _require.function(f"the {name} network", network, "(x, t) -> raw output")
    if _require.real("scale", scale) == 1:
        return conditional
    return Guidance(conditional, unconditional, scale)


class Guidance(nn.Module):
    """`F_uncond + scale (F_cond - F_uncond)`; a Module, so that `.to()` and `.eval()` reach both
    networks.

    Parameters
    ----------
    conditional, unconditional, scale
        As in `guided`.
    """

    def __init__(self, conditional: Network, unconditional: Network, scale: float) -> None:
        super().__init__()
        self.conditional, self.unconditional, self.scale = conditional, unconditional, scale
        self.training = any(
            isinstance(n, nn.Module) and n.training for n in (conditional, unconditional)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the guided raw output, shape of `x`."""
        raw = unwrapped(self.unconditional(x, t))
        return raw + self.scale * (unwrapped(self.conditional(x, t)) - raw)
