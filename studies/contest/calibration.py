r"""Are a method's samples fair, as those of p(x | y) are? Two statistics that tell, with one sample
of each digit.

The true image x* of an observation y is itself a sample of p(x | y). So a fair sample x has the
same mean of any f(x, y), over the digits, as x* has. This holds even where f comes from a network
that has learnt p(x | y) in part only, as that of the limits, whose q(c | y) and m(y) approximate
the probability of the digit c and E[x | y]:

    class excess    mean of q(c(x) | y) - q(c(x*) | y), c the digit that the judge reads: 0 if fair,
                    above if the likeliest digit is drawn too often, below if a digit is drawn that
                    speaks against y
    spread          mean |x - m(y)|^2 / mean |x* - m(y)|^2: 1 if fair, below if samples gather where
                    they are likely, above if they leave the posterior

A fair sampler passes both; one that passes both need not be fair. Where y all but determines the
digit, the class tells little.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

import mnist
from mnist.observer import load_observer
from mnist.problems import problem
from studies.frame.study import Arrays


@torch.no_grad()
def calibrate(task: str, images: NDArray[np.float16], first: int, seed: int, device: str) -> Arrays:
    """Return the statistics of the runs of a task, for each digit.

    Parameters
    ----------
    task : str
    images : array, shape (runs, N, 1, 32, 32)
        Samples of each run, in [-1, 1], for the digits from `first` on.
    first, seed : int
        Of the digits, and of what is observed of them; see `mnist.problems.problem`.
    device : str

    Returns
    -------
    dict
        "class_excess", "distance" and "true_distance", |x - m|^2 and |x* - m|^2, all of shape
        (runs, N).
    """
    judge, count = mnist.load_classifier(device=device), images.shape[1]
    wanted, truth, _ = problem(task, first, count, seed, device)
    logits, means = load_observer(device=device).look(task, wanted)
    q, means = logits.softmax(1), means.clamp(-1, 1)

    def plausible(x: torch.Tensor) -> torch.Tensor:
        return q.gather(1, judge(x).argmax(1, keepdim=True))[:, 0]

    def distance(x: torch.Tensor) -> torch.Tensor:
        return (x - means).square().flatten(1).sum(1)

    runs = [torch.from_numpy(run).to(truth) for run in images]
    found = {
        "class_excess": [plausible(run) - plausible(truth) for run in runs],
        "distance": [distance(run) for run in runs],
        "true_distance": [distance(truth)] * len(runs),
    }
    return {key: torch.stack(values).cpu().numpy() for key, values in found.items()}
