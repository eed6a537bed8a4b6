"""Edits of a region along directions of J."""

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.claims.editing import (
    STEPS,
    STUDY,
    WAYS,
    Editing,
    directions,
    findings,
    oracle,
    region_of,
    table,
)
from studies.frame.findings import Standing
from studies.frame.study import Pieces


def test_the_oracle_s_edit_leaves_the_rest_alone():
    errors = oracle()["oracle"]
    assert errors[:3].max() < 1e-10
    assert errors[3] == 0
    # with too few vectors projected out it leaks: the assertion can fail
    assert oracle(share=0.5)["oracle"][2] > 0.01


def test_the_projected_direction_is_unseen_by_the_rest_and_the_leading_one_is_the_region_s():
    region = np.array([True, True, False, False])
    J = np.diag([3.0, 2.0, 1.0, 0.0])
    J[2, 0] = 1.0
    found, rank = directions(J, region, 1 - 1e-9)
    assert rank == 1
    np.testing.assert_allclose(np.abs(found[0]), [1, 0, 0, 0])
    np.testing.assert_allclose(J[2:] @ found[1], 0, atol=1e-15)
    assert np.linalg.norm(J[:2] @ found[1]) == pytest.approx(3 / np.sqrt(2))


def test_the_region_is_the_right_upper_quarter():
    region = region_of((2, 4, 6))
    assert region.sum() == 2 * 2 * 3
    assert region[:, :2, 3:].all()


def test_claims_are_of_the_middle_noise_level_in_whatever_order():
    rng, told = np.random.default_rng(0), []
    arrays = {
        "time": np.array([300, 500, 700]),
        "digit": np.arange(4),
        **{name: rng.random((3, 4, len(STEPS), len(WAYS))) for name in ("leak", "cosine")},
        "of_bottleneck": rng.random((3, 4)),
        "oracle": np.zeros(4),
    }
    for order in ([0, 1, 2], [1, 2, 0], [2, 1, 0]):
        per_time = ("time", "leak", "cosine", "of_bottleneck")
        found = findings(arrays | {name: arrays[name][order] for name in per_time})
        told.append([(finding.quantity, finding.value) for finding in found])
    assert told[0] == told[1] == told[2]
    assert "t = 500" in told[0][0][0]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    config = Editing(digits=1, times=(500,))
    return STUDY.compute(config, Pieces(tmp_path_factory.mktemp("pieces")))


@pytest.mark.slow
def test_first_order_tells_small_steps(arrays):
    assert arrays["leak"].shape == (1, 1, len(STEPS), len(WAYS))
    cosine = arrays["cosine"][0]
    assert cosine[:, 0].min() > 0.97
    np.testing.assert_allclose(arrays["leak"][0, :, 0], arrays["leak_to_first_order"][0], atol=0.02)
    assert (arrays["leak"][..., 1] < arrays["leak"][..., 0]).all()


@pytest.mark.slow
def test_table_and_findings_have_each_claim(arrays):
    rows = table(arrays)
    assert len(rows) == len(STEPS) * len(WAYS)
    found = findings(arrays)
    assert [finding.passed for finding in found] == [True] * 3
    assert found[0].verdict is Standing.OPEN  # one digit
    less = arrays["leak"][0, :, STEPS.index(0.2)]
    assert found[0].value[0] == pytest.approx((less[:, 1] - less[:, 0]).mean())


def test_an_energy_outside_of_its_range_is_refused():
    with pytest.raises(InputError, match="--energy must lie between 0 and 1"):
        Editing(energy=1.0)


@pytest.mark.slow
def test_a_network_without_a_bottleneck_has_no_finding_of_it(arrays):
    without = arrays | {"of_bottleneck": np.full((1, 1), np.nan)}
    assert len(findings(without)) == 2
