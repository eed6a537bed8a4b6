"""Default times follow the model's schedule; times that were given stay."""

import json
import shutil

import pytest

from jacobian_lab import (
    ContinuousSchedule,
    DiscreteSchedule,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
)
from studies.frame.default_times import fit_to, fitted_times
from studies.frame.model_files import LATENT
from studies.frame.survey import Survey
from studies.jacobian.directions import Directions
from studies.jacobian.spectrum import Spectrum


@pytest.mark.parametrize(
    ("schedule", "found"),
    [
        (RectifiedFlow(), 0.5),
        (VariancePreserving(), 0.5),
        (ContinuousSchedule(lambda t: 1 / (1 + t), lambda t: t / (1 + t), 8.0), 4.0),
        (VarianceExploding(), 3.44),
        (VarianceExploding(2.0), 2.0),
        (DiscreteSchedule.linear(4000), 2000),
        (DiscreteSchedule.linear(10), 5),
    ],
    ids=repr,
)
def test_500_of_1000_becomes_a_time_of_the_schedule(schedule, found):
    t = fit_to(schedule).fit(500)
    assert t == pytest.approx(found, rel=1e-2)
    schedule(t)


def test_a_table_of_1000_times_keeps_them():
    assert fit_to(DiscreteSchedule.cosine()) is None


def test_default_times_fit_a_flow_and_what_was_asked_for_stays(flow, model):
    assert Survey(model=flow).times == tuple(k / 10 for k in range(1, 10))
    assert Spectrum(model="mnist-flow").time == 0.5
    assert Directions(model=flow).times == (0.3, 0.5, 0.7)
    assert Survey(model=flow, times=(0.25, 1)).times == (0.25, 1)
    assert Spectrum(model=flow, time=int("500")).time == 500  # given: the schedule refuses it
    assert Survey(model=flow, times=Survey.times[:1] + Survey.times[1:]).times == Survey.times
    assert Survey(model=model).times == Survey.times
    assert Survey(model="oracle").times == Survey.times


def test_pipelines_say_by_their_files_whether_they_are_flows(tmp_path):
    pytest.importorskip("diffusers")
    assert fitted_times(LATENT) is None
    for index, scheduler, is_flow in (
        ("StableDiffusion3Pipeline", "FlowMatchEulerDiscreteScheduler", True),
        ("InstaFlowPipeline", "PNDMScheduler", True),
        ("StableDiffusionPipeline", "DDIMScheduler", False),
    ):
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        (tmp_path / "mine" / "scheduler").mkdir(parents=True)
        for place, kind in (
            ("model_index.json", index),
            ("scheduler/scheduler_config.json", scheduler),
        ):
            (tmp_path / "mine" / place).write_text(json.dumps({"_class_name": kind}))
        assert (fitted_times(str(tmp_path / "mine")) is not None) == is_flow
    (tmp_path / "mine" / "model_index.json").write_text("[]")  # broken: told when it is opened
    assert fitted_times(str(tmp_path / "mine")) is None
