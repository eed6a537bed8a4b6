"""Masks know what they say, and are drawn alike from one seed."""

import pytest
import torch

from jacobian_lab import InputError
from jacobian_lab.constraints.masks import box, free_form, half, random_pixels


def test_masks():
    shape = (1, 16, 12)
    assert all(
        half(shape, side).float().mean() == 0.5 for side in ("left", "right", "top", "bottom")
    )
    assert half(shape, "top")[0, :8].all()
    assert int((~box(shape, 4)).sum()) == 16
    assert not box(shape, 4)[0, 7, 5]
    assert int(random_pixels(shape, 0.25, 3).sum()) == 48
    assert not torch.equal(random_pixels(shape, 0.25, 3), random_pixels(shape, 0.25, 4))
    drawn = free_form(shape, seed=1)
    assert 0.2 < drawn.float().mean() < 0.95
    assert torch.equal(drawn, free_form(shape, seed=1))
    for call in (
        lambda: half(shape, "middle"),
        lambda: box(shape, 16),
        lambda: random_pixels(shape, 0.0),
        lambda: free_form(shape, 0),
    ):
        with pytest.raises(InputError):
            call()
