"""The small transformer is a denoiser whose J exists: exact products agree with differences."""

import torch

from jacobian_lab import JacobianOperator
from mnist.recipe import DenoiserRecipe
from studies.claims.small_models import SMALL
from studies.claims.small_transformer import SmallTransformer, transformer_denoiser


def awake():
    """A transformer whose gates are open, in float64."""
    denoiser = transformer_denoiser(DenoiserRecipe(seed=3)).double()
    g = torch.Generator().manual_seed(0)
    for parameter in denoiser.network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=g, dtype=torch.float64)
    return denoiser.eval().requires_grad_(False)


def test_j_is_exact():
    denoiser = awake()
    x = torch.randn(1, *SMALL, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    J = JacobianOperator(denoiser, x, 400)
    expected = torch.autograd.functional.jacobian(lambda y: denoiser(y, 400), x)
    expected = expected.reshape(256, 256)
    torch.testing.assert_close(torch.from_numpy(J.dense()), expected, rtol=1e-8, atol=1e-10)


def test_it_begins_as_zero_and_every_pixel_sees_every_other():
    network = SmallTransformer()
    x, t = torch.randn(2, *SMALL), torch.tensor([3, 700])
    assert not network(x, t).any()
    J = torch.autograd.functional.jacobian(lambda y: awake()(y, 400), x[:1].double())
    assert (J != 0).all()


def test_samples_of_a_batch_do_not_see_each_other():
    denoiser = awake()
    x, t = torch.randn(3, *SMALL).double(), torch.tensor([3, 300, 700])
    together = denoiser(x, t)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], denoiser(x[k : k + 1], t[k : k + 1]))
