"""Images as conditions that are held fixed: inpainting, ControlNet, IP-Adapter; and LoRA."""

import pytest
import torch

from jacobian_lab import InputError, JacobianOperator, audit, load

from adapter_cases import cases, check_products, check_value
from adapter_cases_images import image, mask, photo, pipeline_of, small_unet, with_adapter
from conftest import relative

pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
pytest.importorskip("transformers", reason='pip install -e ".[sd]"')


@cases("image_conditions")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("image_conditions", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


def dense(pipeline, **options):
    latent = load(pipeline, **options)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    J = JacobianOperator(latent.denoiser, x, 500)
    assert audit(J)
    return J.dense()


def test_a_lora_changes_j_and_a_fused_one_is_the_same():
    peft = pytest.importorskip("peft", exc_type=ImportError)
    pipeline = pipeline_of("StableDiffusionPipeline")
    plain = dense(pipeline)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipeline.unet.add_adapter(config)
    adapted = dense(pipeline)
    pipeline.unet.fuse_lora()
    assert relative(adapted, plain) > 1e-3
    assert relative(dense(pipeline), adapted) < 1e-5


def test_each_condition_changes_d():
    inpainting = pipeline_of("StableDiffusionInpaintPipeline", small_unet(9))
    x = torch.randn(1, 4, 8, 8)
    one, other = (
        load(inpainting, image=shown, mask=mask()).denoiser(x, 500) for shown in (image(), -image())
    )
    assert relative(one, other) > 1e-4


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda: pipeline_of("StableDiffusionInpaintPipeline", small_unet(9)),
            {},
            "needs image and mask: pass both",
        ),
        (
            lambda: pipeline_of("StableDiffusionInpaintPipeline", small_unet(9)),
            {"image": image(), "mask": mask().float()},
            "mask must be bool",
        ),
        (
            lambda: pipeline_of("StableDiffusionPipeline"),
            {"image": image(), "mask": mask()},
            "image and mask given, but the network has no channels for it",
        ),
        (
            lambda: pipeline_of("StableDiffusionPipeline"),
            {"control_image": image()},
            "the network has no ControlNet for it",
        ),
        (
            lambda: pipeline_of("StableDiffusionPipeline"),
            {"adapter_image": 3},
            "the pipeline has no IP-Adapter",
        ),
        (
            lambda: with_adapter(pipeline_of("StableDiffusionPipeline")),
            {},
            "has an IP-Adapter: pass adapter_image",
        ),
    ],
)
def test_a_condition_too_few_or_too_many_is_told(make, options, message):
    with pytest.raises(InputError, match=message):
        load(make(), **options)


def test_an_ip_adapters_image_matters():
    pipeline = with_adapter(pipeline_of("StableDiffusionPipeline"))
    x = torch.randn(1, 4, 8, 8)
    one = load(pipeline, adapter_image=photo()).denoiser(x, 500)
    other = load(pipeline, adapter_image=photo().rotate(90)).denoiser(x, 500)
    assert relative(one, other) > 1e-5
