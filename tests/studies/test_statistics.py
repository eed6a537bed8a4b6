import numpy as np
import pytest
import scipy.stats
import torch

from studies.frame.statistics import (
    fidelity,
    fraction_interval,
    mean_interval,
    over_digits,
    rate_interval,
    ratio_interval,
    scores,
)


def test_the_mean_has_students_interval():
    values = [1.0, 2.0, 4.0, 8.0]
    mean, low, high = mean_interval(values)
    expected = scipy.stats.t.interval(0.95, 3, 3.75, scipy.stats.sem(values))
    assert mean == 3.75
    assert np.allclose((low, high), expected)


def test_rates_have_an_interval_inside_0_to_1_even_at_its_ends():
    for successes, trials in ((0, 5), (5, 5), (3, 5)):
        rate, low, high = rate_interval(successes, trials)
        assert 0 <= low <= rate <= high <= 1
        assert high - low > 0.3
    # Wilson's score for 3 of 5, by its formula
    z, p, n = 1.959964, 0.6, 5
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert np.allclose(rate_interval(3, 5)[1:], (centre - reach, centre + reach), atol=1e-6)
    for successes in range(41):
        found = scipy.stats.binomtest(successes, 40).proportion_ci(0.95, "wilson")
        assert np.allclose(rate_interval(successes, 40)[1:], (found.low, found.high), atol=1e-12)


def test_a_share_that_no_sample_has_may_still_be_one_in_ten():
    assert fraction_interval(np.zeros(40)) == rate_interval(0, 40)
    assert fraction_interval([True, False, True]) == rate_interval(2, 3)
    # means of several outcomes each: theirs is no wider
    shares = np.random.default_rng(0).binomial(3, 0.2, 60) / 3
    _, low, high = fraction_interval(shares)
    _, least, most = mean_interval(shares)
    assert low < least < most < high


def test_psnr_is_that_of_pixels_from_minus_1_to_1():
    truth = torch.zeros(2, 1, 32, 32)
    images = torch.stack([truth[0] + 0.2, truth[1] + 5.0])  # the second is clamped to 1
    found = fidelity(images, truth)
    assert np.allclose(found["psnr"], [20.0, 10 * np.log10(4)], atol=1e-5)
    assert np.isclose(fidelity(truth, truth)["ssim"], 1).all()
    assert (found["ssim"] < 0.9).all()


def test_scores_count_what_the_judge_sees():
    def judge(images):  # sees a 1 in bright images, else a 0
        bright = images.mean((1, 2, 3))
        return torch.stack([-bright, bright], 1)

    images = torch.stack([torch.full((1, 32, 32), value) for value in (0.9, -0.9, 3.0)])
    found = scores(images, torch.zeros_like(images), torch.tensor([1, 1, 1]), judge)
    assert found["agreement"].tolist() == [True, False, True]
    doubt = np.log1p(np.exp(-2 * np.array([0.9, -0.9, 1.0])))  # the third is clamped to 1
    assert np.allclose(found["doubt"], doubt, atol=1e-6)
    assert found.keys() == {"psnr", "ssim", "agreement", "doubt"}


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_few_values_is_wider_than_that_of_many(seed):
    draws = np.random.default_rng(seed).normal(size=400)
    few, many = (mean_interval(draws[:n]) for n in (4, 400))
    assert few[2] - few[1] > 3 * (many[2] - many[1])


def test_noises_of_one_digit_count_as_one_sample():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        of_digit, of_noise = rng.standard_normal((3, 1)), 0.5 * rng.standard_normal((3, 2))
        _, low, high = mean_interval(over_digits((of_digit + of_noise).ravel(), np.arange(6) // 2))
        hits += low <= 0 <= high
    assert hits >= 370  # of 6 independent samples it would be 330
    np.testing.assert_array_equal(over_digits([3.0, 1.0, 2.0], [5, 4, 6]), [3, 1, 2])


def test_a_ratio_of_means_has_the_interval_of_its_pairs():
    ratio, low, high = ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (ratio, low, high) == (2, 2, 2)  # every pair has the same
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        a, b = rng.exponential(1.5, 200), rng.exponential(1.0, 200)
        ratio, low, high = ratio_interval(a, b)
        hits += low <= 1.5 <= high
    # 95 % of 500, with four deviations and what the delta method is off by
    assert 450 <= hits <= 495
