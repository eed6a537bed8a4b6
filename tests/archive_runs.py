"""Finished runs of `eigenvalues` whose numbers are made up, for tests of what reads runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from studies.frame.study import perform
from studies.jacobian import eigenvalues

PARTS = ("J", "symmetric", "skew")


def numbers(config):
    """Arrays as the study returns them: the largest of part p at time k of sample i is 100 k + 10 i
    + p.
    """
    shape = (len(config.times), config.digits * config.seeds, len(PARTS))
    k, i, p = np.indices(shape)
    return {
        "largest": 100.0 * k + 10 * i + p,
        "error": np.full(shape, 1e-9),
        "products": np.full(shape, 7),
        "converged": np.full(shape, True),
        "truth": np.full((shape[0], shape[2]), np.nan),
        "time": np.array(config.times),
        "operator": np.array(PARTS),
        "sample": np.array([f"digit {n}" for n in range(shape[1])]),
        "digit": np.arange(shape[1]),
        "seed": config.seed + np.arange(shape[1]) % config.seeds,
        "subject": np.array("model mnist"),
    }


STUDY = replace(eigenvalues.STUDY, compute=lambda config, _: numbers(config))


def make_run(runs, **options):
    """Return the folder of a finished run in `runs`."""
    config = eigenvalues.Eigenvalues(**({"digits": 2, "seeds": 1, "times": (300, 700)} | options))
    return perform(STUDY, config, Path(runs)).folder
