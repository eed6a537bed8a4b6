import json
import shutil

import pytest

from jacobian_lab import InputError
from studies.frame.model_files import LATENT, pipeline_folder
from studies.frame.models import fitted_times
from studies.frame.options import OnModel
from studies.frame.survey import Survey
from studies.jacobian.directions import Directions
from studies.jacobian.spectrum import Spectrum


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


def test_options_of_latents_are_refused_for_pixels(model):
    for option in ({"prompt": "a 7"}, {"negative_prompt": "a 1"}, {"guidance": 2.0}):
        with pytest.raises(
            InputError, match=r"is for latent models, and --model .* denoises pixels"
        ):
            OnModel(model=model, **option)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": 4.0}, "--guidance 4 has no effect without --prompt"),
        ({"guidance": 4.0, "prompt": "x", "negative_prompt": " x"}, "where --negative-prompt is"),
        ({"negative_prompt": "x"}, "--negative-prompt has no effect with --guidance 1"),
        ({"guidance": float("nan")}, "--guidance must be finite"),
    ],
)
def test_guidance_without_effect_is_refused(options, message):
    assert pipeline_folder(LATENT).is_dir()
    with pytest.raises(InputError, match=message):
        OnModel(model=LATENT, **options)
