r"""The limits of the contest: how often the digit can be named from what is observed, and how near
to the image one can come.

`mnist.observer` names the digit of the largest p(digit | y), and draws E[x | y]. What the two mean
for a method, whose samples another network judges:

    agreement    who knows p(digit | y) and answers with its largest entry is right most often: no
                 method can be right more often but by luck, or by the judge, which may read the
                 right digit out of an image of another. A fair sample is right less often: the
                 digit c is drawn with probability p(c | y), so that the rate is E sum p(c | y)^2.
    PSNR         E[x | y] has the least squared error, and all but the best PSNR, the mean of a
                 logarithm. A sample of the posterior has twice the error: 3 dB less.

Both are approached from below, by a network of training digits: a method may be above by what the
network has not learnt. Where y all but determines the image ("blur, exact") the PSNR is the
network's own, and no limit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist.observer import load_observer
from mnist.problems import problem
from studies.frame.answer import Row
from studies.frame.statistics import fidelity, mean_interval, rate_interval
from studies.frame.study import Arrays

BATCH = 500
HELD_OUT = 3000
"""Held-out digits on which the limits are measured, beside those of the contest, which come
first.
"""


def measure_limits(task: str, first: int, seed: int, device: str) -> Arrays:
    """Return agreement and PSNR, (HELD_OUT,), on held-out digits from `first` on, and the drawn
    images, float16.
    """
    observer = load_observer(device=device)
    parts: dict[str, list[NDArray[Any]]] = {"agreement": [], "psnr": [], "images": []}
    for at in range(first, first + HELD_OUT, BATCH):
        wanted, images, named = problem(task, at, BATCH, seed, device)
        seen = observer.look(task, wanted)
        parts["agreement"].append((seen.logits.argmax(1) == named).cpu().numpy())
        parts["psnr"].append(fidelity(seen.images, images)["psnr"])
        parts["images"].append(seen.images.clamp(-1, 1).cpu().numpy().astype(np.float16))
    return {key: np.concatenate(found) for key, found in parts.items()}


def limit_rows(task: str, agreement: NDArray[Any], psnr: NDArray[Any], shown: int) -> list[Row]:
    """Return the limits of a task, on the first `shown` digits and on all."""
    rows: list[Row] = []
    for count in (shown, len(agreement)):
        rate, low, high = rate_interval(int(agreement[:count].sum()), count)
        mean, least, most = mean_interval(psnr[:count])
        rows.append(
            {
                "task": task,
                "method": "limit" if count == shown else f"limit, {count} digits",
                "setting": "limit",
                "digits": count,
                "agreement": rate,
                "agreement_low": low,
                "agreement_high": high,
                "psnr": mean,
                "psnr_low": least,
                "psnr_high": most,
            }
        )
    return rows
