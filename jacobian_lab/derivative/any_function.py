"""Any function of a sample, as the ladder takes it: in the place of a denoiser's network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jacobian_lab import _require
from jacobian_lab.diffusion.schedule import Time
from jacobian_lab.errors import InputError


class AnyFunction(nn.Module):
    """A function `(B, *shape) -> (B, *anything)` of samples that do not see each other.

    Parameters
    ----------
    function : callable
        A module, or a function.
    x : Tensor, shape (1, *shape)
        The point: of its size are the steps of differences.

    Attributes
    ----------
    output_shape : tuple of int
        Shape of the function's value at one sample, once it was called.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        super().__init__()
        self.function = function
        self.training = isinstance(function, nn.Module) and function.training
        self.size = x.double().square().mean().sqrt() if bool(x.any()) else x.new_ones(())
        self.output_shape: tuple[int, ...] = ()

    def schedule(self, _t: Time) -> tuple[Tensor, Tensor]:
        """Return the size of x and no noise: the ladder wants the size that x is expected to
        have.
        """
        return self.size, torch.zeros_like(self.size)

    def output(self, x: Tensor, t: Time) -> Tensor:
        """Return the value at each sample of a batch, with as many dimensions as x has: (B, m, 1,
        ...); a copy, since the next call may write into the same memory.

        Raises
        ------
        InputError
            If it is no real floating-point tensor with the batch's size in front.
        """
        del t  # of which a function of x knows nothing
        found = self.function(x.clone())
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise InputError(
                f"the function returned {_require.shown(found)}: expected one real floating-point"
                " tensor"
            )
        if found.ndim == 0 or len(found) != len(x) or not found.numel():
            raise InputError(
                f"the function returned shape {tuple(found.shape)} for an input of"
                f" {tuple(x.shape)}: expected ({len(x)}, ...), a value for each sample"
            )
        self.output_shape = tuple(found.shape[1:])
        return found.clone().reshape(len(x), -1, *(1,) * (x.ndim - 2))
