"""diffusers' pipelines of pixels against their schedulers' own steps."""

import pytest
import torch

from jacobian_lab import InputError, load, load_latent

from adapter_cases import cases, check_products, check_value
from adapter_cases_diffusers import unet
from conftest import relative

diffusers = pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')


@cases("pixels")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("pixels", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


def test_a_consistency_model_is_the_identity_at_sigma_min():
    denoiser = load((unet(), diffusers.CMStochasticIterativeScheduler()))
    x = torch.randn(1, 3, 8, 8)
    assert torch.allclose(denoiser(x, 0.002), x, atol=1e-6)


def test_a_folder_of_a_pixel_pipeline_is_read(tmp_path):
    pipeline = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path)
    x = torch.randn(1, 3, 8, 8)
    assert relative(load(tmp_path)(x, 500), load(pipeline)(x, 500)) < 1e-6
    with pytest.raises(InputError, match="DDPMPipeline, which has no prompt"):
        load_latent(tmp_path)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: (unet(num_class_embeds=5), diffusers.DDPMScheduler()), {}, "pass label=0 ... 4"),
        (lambda: (unet(), diffusers.DDPMScheduler()), {"label": 1}, "has no classes: leave it out"),
        (
            lambda: (unet(), diffusers.EDMEulerScheduler(prediction_type="v_prediction")),
            {},
            "prediction_type 'v_prediction': expected 'epsilon'",
        ),
        (lambda: (unet(), diffusers.DDPMScheduler()), {"prompt": "a"}, "no option 'prompt'"),
    ],
)
def test_what_does_not_fit_is_told(make, options, message):
    with pytest.raises(InputError, match=message):
        load(make(), **options)
