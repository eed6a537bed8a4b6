"""ReSample: its draws have the law they should, its fits meet the observations."""

import pytest
import torch

from jacobian_lab import InputError
from studies.contest.methods.noise_levels import NoiseLevel
from studies.contest.methods.resample import RESAMPLE, resample, resampled

from peer_checks import (
    SEEDS,
    SHAPE,
    check_price,
    check_settings,
    decode,
    latents,
    masked,
    oracle,
    shrunk,
)


def test_price_and_settings():
    check_settings(RESAMPLE)
    check_price(RESAMPLE, latents(shrunk()), inner=5, every=1)


def test_the_noisy_latent_is_drawn_as_the_authors_draw_it():
    now, after, spread, count = NoiseLevel(5, 0.6, 0.8), NoiseLevel(4, 0.8, 0.6), 2.0, 20000
    z, fit = (torch.full((count, *SHAPE), value, dtype=torch.float64) for value in (0.3, -0.7))
    torch.manual_seed(0)
    found = resampled(z, fit, now, after, spread)
    a_t, a_s = 0.36, 0.64
    sigma = spread * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    mean = (sigma * a_s**0.5 * fit + (1 - a_s) * z) / (sigma + 1 - a_s)
    assert (found - mean).mean().abs() < 0.01
    assert float(found.std()) == pytest.approx((1 / sigma + 1 / (1 - a_s)) ** -0.5, rel=0.02)


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_what_it_ends_with_meets_the_observations(sigma):
    problem = shrunk(sigma)
    found = resample(oracle(), latents(problem), SEEDS, 8, every=2, inner=200)
    assert (problem.residual(decode(found)) < max(sigma, 0.003) * 1.01).all()


def test_a_fit_moves_what_follows():
    problem = latents(shrunk())
    rarely, often = (resample(oracle(), problem, SEEDS, 12, 0.0, every, 50) for every in (12, 2))
    assert (rarely - often).norm() > 0.05 * rarely.norm()


def test_it_works_on_latents():
    with pytest.raises(InputError, match="ReSample works on latents: got Inpainting"):
        resample(oracle(), masked(), [0, 1, 2], 2)
