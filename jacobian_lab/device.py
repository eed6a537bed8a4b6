"""Whether a device that somebody named can be used."""

import torch

from jacobian_lab.errors import InputError


def check_device(device: torch.device | str) -> None:
    """Raise an `InputError` unless tensors can live on the device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {str(device)!r} cannot be used: {reason} Take cpu, or a device that this PyTorch "
                         "was built for") from error
