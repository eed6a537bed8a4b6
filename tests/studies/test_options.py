import pytest

from jacobian_lab import InputError
from studies.frame.model_files import LATENT, pipeline_folder
from studies.frame.options import OnModel


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
