"""The direction of the check sees what a random one does not."""

import pytest
import torch

from jacobian_lab.derivative.probes import foreign, probe, unit

from linear_maps import weights


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 2, 16, 16)])
def test_the_probe_has_the_size_of_noise_and_is_the_same_each_time(shape):
    x = weights(*shape)
    v = probe(x)
    assert v.shape == (1, *shape)
    assert torch.allclose(v.square().mean((0, 2, 3, 4)), torch.ones(shape[0], dtype=v.dtype))
    assert torch.equal(v, probe(x))


@pytest.mark.parametrize("part", ["x", "constant", "slope"])
def test_numbers_that_are_read_out_show_along_the_probe(part):
    """A random direction sees one over sqrt(n): less than 1 % here."""
    x = weights(1, 3, 64, 64)
    along = {
        "x": x,
        "constant": torch.ones_like(x),
        "slope": torch.linspace(-1, 1, 64, dtype=x.dtype).expand(x.shape),
    }[part]
    v = probe(x)[0]
    assert float((v * along).sum() / (v.norm() * along.norm())) > 0.2


def test_a_sample_of_zeros_has_a_probe():
    assert torch.isfinite(probe(torch.zeros(1, 1, 4, 4))).all()


def test_the_foreign_sample_is_another_one_of_another_mean_and_size():
    x = weights(2, 1, 4, 4)
    other = foreign(x)
    assert other.shape == x.shape
    for of in (torch.mean, torch.std, torch.amax, torch.amin, torch.linalg.vector_norm):
        assert not torch.isclose(of(other[1]), of(x[1]))
    assert 0.5 < other[1].norm() / x[1].norm() < 5


def test_rows_are_brought_to_length_one_and_zeros_stay():
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(unit(rows), expected, rtol=1e-15, atol=0)
