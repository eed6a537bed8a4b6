"""Studies from Python, on a model and samples at hand."""

import numpy as np
import pytest
import torch

import studies
from jacobian_lab import DiscreteSchedule, InputError, RectifiedFlow, gaussian
from studies.frame.user_models import GIVEN

from conftest import random_covariance

g = torch.Generator().manual_seed(0)
ORACLE = gaussian(torch.zeros(12), random_covariance(12, g).float(), RectifiedFlow(), (3, 2, 2))
IMAGES = ORACLE.sample(2, g)


def test_it_returns_arrays_rows_figure_and_answer_and_leaves_the_model_alone():
    denoiser = ORACLE.denoiser("v")
    found = studies.run("eigenvalues", denoiser, IMAGES, times=(0.5,), seeds=1)
    truth = np.linalg.eigvalsh(ORACLE.jacobian(IMAGES[:1], 0.5)[0].double())[-1]
    np.testing.assert_allclose(found.arrays["largest"][0, :, 0], truth, rtol=1e-5)
    assert found.rows[0]["operator"] == "J"
    assert found.figure.axes
    assert "symmetric" in found.answer
    assert next(denoiser.buffers()).dtype == torch.float32
    assert not GIVEN
    assert str(found.arrays["subject"]).startswith("model given:OracleNetwork")


def test_sampling_runs_too():
    found = studies.run(
        "inpaint", ORACLE.denoiser("flow"), IMAGES, samples=1, steps=4, newton_steps=1
    )
    assert found.arrays["images"].shape == (3, 2, 1, 3, 2, 2)


def test_models_by_name_and_digits_are_the_default():
    found = studies.run("eigenvectors", "oracle", time=500, k=1)
    assert found.arrays["time"] == 500


def test_the_answer_holds_the_findings():
    found = studies.run("risk", "oracle", digits=8, draws=64, times=(500,), probes=2)
    assert "SURE of a deep denoiser is unbiased" in found.answer


def test_models_and_images_are_refused_where_a_study_takes_none():
    with pytest.raises(InputError, match="dimension has no option images: expected of"):
        studies.run("dimension", images=IMAGES)
    with pytest.raises(InputError, match="memorisation has no option model: expected of"):
        studies.run("memorisation", ORACLE.denoiser("v"))
    with pytest.raises(InputError, match="--sizes must be two or more rising numbers"):
        studies.run("memorisation", sizes=(3,))  # the model is left to the study


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("eigenvalues", {"steps": 3}, "eigenvalues has no option steps: expected of"),
        ("audit", {}, "is no study with a figure"),
        ("eigenvalue", {}, "'eigenvalue' is no study with a figure"),
        ("train denoiser", {}, "is no study with a figure"),
        ("eigenvalues", {"times": (2.0,)}, "outside this schedule"),
    ],
)
def test_slips_are_errors(name, options, told):
    with pytest.raises(InputError, match=told):
        studies.run(name, ORACLE.denoiser("v"), IMAGES, **options)
    assert not GIVEN


def test_a_model_of_something_else_is_refused():
    with pytest.raises(InputError, match="returned a Identity: expected a jacobian_lab"):
        studies.run("eigenvalues", torch.nn.Identity(), IMAGES)
    with pytest.raises(InputError, match="is not of our digits"):
        studies.run(
            "eigenvalues",
            gaussian(torch.zeros(4), torch.eye(4), DiscreteSchedule.linear()).denoiser(),
        )
