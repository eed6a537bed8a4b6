import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mnist.unet import UNet

import networks
from conftest import relative


@pytest.mark.parametrize("size", [8, 16, 32])
def test_shape_is_kept_and_the_untrained_output_is_zero(size):
    network = UNet(channels=(32, 32, 64)).eval()
    x = torch.randn(2, 1, size, size)
    assert network(x, torch.tensor([0, 999])).shape == x.shape
    assert not network(x, torch.tensor([0, 999])).any()


def test_samples_of_a_batch_do_not_see_each_other():
    denoiser = networks.unet()
    x = torch.randn(3, *networks.SHAPE, dtype=torch.float64)
    t = torch.tensor([1, 400, 900])
    together = denoiser(x, t)
    assert relative(together[1], denoiser(x[1], 400)) < 1e-12


def test_the_time_matters_and_neighbouring_times_differ_little():
    denoiser = networks.unet()
    x = torch.randn(1, *networks.SHAPE, dtype=torch.float64)
    network = denoiser.network
    near, far = (
        relative(network(x, torch.tensor([t])), network(x, torch.tensor([500]))) for t in (501, 900)
    )
    assert 0 < near < 0.5 * far


def test_flow_times_are_scaled_to_training_times():
    torch.manual_seed(0)
    network = networks.unet().network
    flow = UNet(channels=(32, 32, 32), time_scale=1000.0).double()
    flow.load_state_dict(network.state_dict())
    x = torch.randn(1, *networks.SHAPE, dtype=torch.float64)
    assert (
        relative(
            flow(x, torch.tensor([0.25], dtype=torch.float64)), network(x, torch.tensor([250]))
        )
        < 1e-12
    )


def test_the_network_is_smooth():
    """A kink would leave a central difference with an error of order h instead of h^2."""
    denoiser = networks.unet()
    x, v = torch.randn(2, 1, *networks.SHAPE, dtype=torch.float64)
    with sdpa_kernel(SDPBackend.MATH):
        exact = torch.autograd.functional.jvp(lambda x: denoiser(x, 300), x, v)[1]
    errors = [
        relative((denoiser(x + h * v, 300) - denoiser(x - h * v, 300)) / (2 * h), exact)
        for h in (1e-2, 1e-3)
    ]
    assert errors[1] < 0.02 * errors[0]
