"""What products of a Jacobian, or a sampler, have cost."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass
class Spent:
    """What was computed so far, in passes for each sample; a mean where they differ."""

    forward: float = 0
    """Forward passes of the denoiser."""
    jvp: float = 0
    """Exact products J v; a finite difference counts as the forward passes that it is."""
    vjp: float = 0
    """Exact products J^T u: backward passes."""

    @property
    def evaluations(self) -> float:
        """All passes together."""
        return self.forward + self.jvp + self.vjp

    def copy(self) -> Spent:
        """Return the present figures."""
        return replace(self)

    def add(self, other: Spent) -> None:
        """Count what was spent elsewhere, too."""
        self.forward += other.forward
        self.jvp += other.jvp
        self.vjp += other.vjp
