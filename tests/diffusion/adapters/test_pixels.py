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
        (
            lambda: (unet(), diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)),
            {},
            "invert_sigmas, time the other way round",
        ),
        (
            lambda: (
                unet(),
                diffusers.UniPCMultistepScheduler(
                    prediction_type="v_prediction", use_flow_sigmas=True
                ),
            ),
            {},
            "use_flow_sigmas, the path of a flow, with prediction_type 'v_prediction'",
        ),
        (
            lambda: (
                unet(),
                diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"),
            ),
            {},
            "'flow_prediction' without use_flow_sigmas",
        ),
        (
            lambda: (
                unet(),
                diffusers.EulerDiscreteScheduler(
                    prediction_type="v_prediction", timestep_type="continuous"
                ),
            ),
            {},
            r"its network gets ln\(sigma\) / 4",
        ),
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


def test_a_flow_by_its_prediction_is_a_flow():
    flow = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True
    )
    x, network = torch.randn(1, 3, 8, 8), unet()
    theirs = load((network, diffusers.FlowMatchEulerDiscreteScheduler()))(x, 0.4)
    assert torch.equal(load((network, flow))(x, 0.4), theirs)


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
def test_zero_terminal_snr_ends_at_zero_whatever_the_scheduler_puts_there(beta_schedule):
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, beta_schedule=beta_schedule
    )
    assert scheduler.alphas_cumprod[-1] == 2**-24
    table = load((unet(), scheduler)).schedule.alphas_cumprod
    assert table[-1] == 0
    assert torch.equal(table[:-1], scheduler.alphas_cumprod[:-1].double())


def test_a_shape_is_that_of_the_configuration_or_given():
    network = unet(sample_size=None)
    with pytest.raises(InputError, match=r"pass shape=\(3, H, W\)"):
        load((network, diffusers.DDPMScheduler()))
    assert load((network, diffusers.DDPMScheduler()), shape=(3, 8, 16)).shape == (3, 8, 16)


def test_a_folder_of_the_first_releases_has_its_parts_beside_the_index(tmp_path):
    pipeline = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path)
    for part in ("unet", "scheduler"):
        for path in (tmp_path / part).iterdir():
            path.rename(tmp_path / path.name)
        (tmp_path / part).rmdir()
    x = torch.randn(1, 3, 8, 8)
    assert relative(load(tmp_path)(x, 500), load(pipeline)(x, 500)) < 1e-6
    (tmp_path / "scheduler_config.json").unlink()
    with pytest.raises(InputError, match="has no folder scheduler"):
        load(tmp_path)
