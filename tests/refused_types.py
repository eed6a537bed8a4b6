"""What the type checker has to refuse, by `mypy tests/refused_types.py`: strict as it is here, it
tells of each `ignore` that is not needed.
"""

from torch import Tensor

from jacobian_lab import Denoiser, DiscreteSchedule

LINEAR = DiscreteSchedule.linear()


def network(x: Tensor, t: Tensor) -> Tensor:
    return x * t


def untyped(x, t):  # type: ignore[no-untyped-def]
    return x * t


def backwards(t: Tensor) -> Tensor:
    return t


def calls() -> None:
    Denoiser(network, LINEAR, "v", (1, 32, 32))
    Denoiser(backwards, LINEAR, "v", (1, 32, 32))  # type: ignore[arg-type]
    Denoiser(network, LINEAR, "velocity", (1, 32, 32))  # type: ignore[arg-type]
    Denoiser(network, "linear", "v", (1, 32, 32))  # type: ignore[arg-type]
    Denoiser(network, LINEAR, "v", 32)  # type: ignore[arg-type]
    Denoiser(network, LINEAR, "v", ("1", "32", "32"))  # type: ignore[arg-type]
