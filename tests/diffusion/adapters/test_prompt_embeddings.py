"""What carries a prompt into SDXL, PixArt, AuraFlow, Lumina 2, Sana, FLUX: against their calls."""

import pytest
import torch

from jacobian_lab import load

from adapter_cases import cases, check_products, check_value
from adapter_cases_text import flux_pipeline, pixart_pipeline, sdxl_pipeline
from conftest import relative


@cases("prompt_embeddings")
def test_d_is_the_familys_own_x_0(case):
    check_value(case)


@cases("prompt_embeddings", products=True)
def test_j_is_its_derivative(case):
    check_products(case)


@pytest.mark.parametrize(
    ("make", "t", "options"),
    [
        (sdxl_pipeline, 500, {}),
        (lambda: flux_pipeline(True), 0.5, {"size": (64, 64), "embedded_guidance": 2.0}),
        (lambda: pixart_pipeline("PixArtSigmaPipeline", 8), 500, {}),
    ],
    ids=["sdxl", "flux", "pixart"],
)
def test_a_folder_is_the_same_model_as_its_pipeline(tmp_path, make, t, options):
    pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
    pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
    pipeline = make()
    if t != 500:  # a class of the tests is of no library
        import diffusers

        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipeline.save_pretrained(tmp_path)
    one, two = (load(of, prompt="a cat", **options).denoiser for of in (pipeline, tmp_path))
    x = torch.randn(1, *one.shape)
    assert relative(one(x, t), two(x, t)) < 1e-5
