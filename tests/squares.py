"""A small study that counts what it computes, for tests of the frame."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from studies.frame.dataset import Variable
from studies.frame.study import Config, Study


@dataclass(frozen=True)
class Options(Config):
    """Squares of numbers."""

    count: int = 3
    """Numbers."""
    power: tuple[int, ...] = (1, 2)
    """Without effect."""


class Squares:
    """A study of three pieces that counts what it computes and can be told to fail."""

    def __init__(self):
        self.computed = []
        self.fails_at = None
        self.error = KeyboardInterrupt()

    def piece(self, i):
        if i == self.fails_at:
            raise self.error
        self.computed.append(i)
        return {"square": np.array(i**2)}

    def study(self):
        def compute(config, pieces):
            found = [pieces(f"piece-{i}", lambda i=i: self.piece(i)) for i in range(config.count)]
            return {"squares": np.array([piece["square"] for piece in found])}

        def plot(arrays):
            figure = Figure(figsize=(2, 2))
            figure.subplots().plot(arrays["squares"])
            return figure

        def table(arrays):
            return [
                {"i": i, "square": float(square) / 3} for i, square in enumerate(arrays["squares"])
            ]

        return Study(
            "squares",
            Options,
            compute,
            table,
            plot,
            lambda config: {},
            variables={"squares": Variable("i", "squares of numbers")},
        )


FILES = [
    "SHA256SUMS",
    "config.json",
    "data.nc",
    "figure.pdf",
    "figure.png",
    "manifest.json",
    "table.csv",
]


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())
