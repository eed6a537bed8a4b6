"""Images beyond digits: of the range and shape that an encoder takes, none of them its digit."""

import pytest
import torch

import mnist
from mnist.variations import VARIATIONS, coarsen, smooth, vary


@pytest.fixture
def pair():
    torch.manual_seed(0)
    images, _ = mnist.digits("held-out")
    return images[3:4], images[8:9]


@pytest.mark.parametrize("way", VARIATIONS)
def test_each_way_makes_another_image_of_the_same_kind(way, pair):
    for _ in range(20):
        found = way(*pair)
        assert found.shape == pair[0].shape
        assert found.dtype == torch.float32
        assert found.min() > -5
        assert found.max() < 5
    assert (found - pair[0]).abs().max() > 0.01


def test_a_blur_keeps_the_sum_and_spreads_a_point():
    point = torch.full((1, 1, 32, 32), -1.0)
    point[..., 16, 16] = 1
    found = smooth(point, 1.5) + 1
    assert float(found.sum()) == pytest.approx(2, rel=1e-4)
    rows = found.sum((0, 1, 3)) / 2
    assert float((rows * (torch.arange(32) - 16.0).square()).sum()) == pytest.approx(2.25, rel=0.01)


def test_shrinking_keeps_a_constant_and_coarse_pixels(pair):
    constant = torch.full((2, 1, 32, 32), 0.3)
    torch.testing.assert_close(coarsen(constant, 4), constant)
    mean = torch.nn.functional.avg_pool2d(coarsen(pair[0], 4), 4)
    assert float((mean - torch.nn.functional.avg_pool2d(pair[0], 4)).abs().mean()) < 0.05


def test_every_image_is_varied_by_its_own_draw_of_the_generator(pair):
    images, others = (image.expand(12, -1, -1, -1) for image in pair)
    torch.manual_seed(1)
    found = vary(images, others)
    torch.manual_seed(1)
    assert torch.equal(found, vary(images, others))
    assert len({image.numpy().tobytes() for image in found}) > 6
