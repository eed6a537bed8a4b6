"""What a pipeline's network predicts, and at which time: read, or asked for, never guessed."""

import shutil

import pytest
import torch
from torch import nn

from jacobian_lab import DiscreteSchedule, InputError, JacobianOperator, RectifiedFlow, load_latent
from jacobian_lab.diffusion.oracle import gaussian

from conftest import random_covariance, relative

diffusers = pytest.importorskip("diffusers", reason='pip install -e ".[sd]"')
pytest.importorskip("transformers", reason='pip install -e ".[sd]"')
import pipelines  # noqa: E402 - needs what was asked for above


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder for each configuration, as diffusers saves it."""
    return pipelines.saved(tmp_path_factory.mktemp("pipelines"))


class Toy(nn.Module):
    """The network of a Gaussian prior in a pipeline's own convention: the closed form, spelled
    out.
    """

    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, oracle, predicts):
        super().__init__()
        channels, h, w = oracle.shape
        self.oracle, self.predicts, self.seen = oracle, predicts, []
        self.config = diffusers.configuration_utils.FrozenDict(
            in_channels=channels, out_channels=channels, sample_size=(h, w)
        )

    def forward(self, x, timestep, return_dict, **_):
        self.seen.append(timestep)
        if not timestep.is_floating_point():
            x0 = self.oracle.mean(x, timestep)
            alpha_t, sigma_t = (c.to(x).view(-1, 1, 1, 1) for c in self.oracle.schedule(timestep))
            epsilon = (x - alpha_t * x0) / sigma_t
            return (epsilon if self.predicts == "epsilon" else alpha_t * epsilon - sigma_t * x0,)
        t = timestep / 1000
        x0 = self.oracle.mean(x, t)
        mean_of_noise = (x - (1 - t.view(-1, 1, 1, 1)) * x0) / t.view(-1, 1, 1, 1)
        return (mean_of_noise - x0 if self.predicts == "noise - x0" else x0 - mean_of_noise,)


@pytest.mark.parametrize(
    ("predicts", "shape"),
    [
        ("epsilon", (4, 1, 3)),
        ("v", (4, 1, 3)),
        ("noise - x0", (16, 1, 2)),
        ("x0 - noise", (4, 1, 3)),
    ],
)
def test_each_convention_agrees_with_the_definition_on_a_gaussian(predicts, shape):
    if predicts == "noise - x0":
        pipeline, schedule = pipelines.stable_diffusion_3(), RectifiedFlow()
    else:
        pipeline = pipelines.stable_diffusion("v_prediction" if predicts == "v" else "epsilon")
        schedule = (
            RectifiedFlow()
            if predicts == "x0 - noise"
            else DiscreteSchedule(pipeline.scheduler.alphas_cumprod)
        )
    n, g = shape[0] * shape[1] * shape[2], torch.Generator().manual_seed(0)
    oracle = gaussian(
        torch.randn(n, generator=g, dtype=torch.float64), random_covariance(n, g), schedule, shape
    )
    toy = Toy(oracle, predicts)
    setattr(pipeline, "transformer" if predicts == "noise - x0" else "unet", toy)
    latent = load_latent(
        pipeline, dtype=torch.float64, prediction="instaflow" if predicts == "x0 - noise" else None
    )
    x = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    times = (
        torch.tensor([999, 400, 3])
        if isinstance(schedule, DiscreteSchedule)
        else torch.tensor([1.0, 0.4, 0.05])
    )
    assert relative(latent.denoiser(x, times), oracle.mean(x, times)) < 1e-6
    assert toy.seen[0].shape == (3,)
    J = JacobianOperator(latent.denoiser, x[1], times[1])
    assert relative(J.dense(), oracle.jacobian(x[1:2], times[1])[0]) < 1e-6


def test_instaflow_is_never_guessed(folders, tmp_path):
    renamed = shutil.copytree(folders["instaflow"], tmp_path / "model")
    pipelines.edit(renamed / "model_index.json", _class_name="StableDiffusionPipeline")
    explicit, own = load_latent(renamed, prediction="instaflow"), load_latent(folders["instaflow"])
    x = pipelines.noise(own)
    assert torch.equal(explicit.denoiser(x, 0.5), own.denoiser(x, 0.5))
    with pytest.raises(
        InputError, match="prediction='epsilon', but a RectifiedFlowPipeline predicts x_0 - noise"
    ):
        load_latent(folders["instaflow"], prediction="epsilon")
    pipelines.edit(
        renamed / "unet" / "config.json", _name_or_path="XCLiu/instaflow_0_9B_from_sd_1_5"
    )
    with pytest.raises(
        InputError, match=r'come from XCLiu/instaflow_0_9B_from_sd_1_5.*Pass prediction="instaflow"'
    ):
        load_latent(renamed)
    assert load_latent(renamed, prediction="epsilon").denoiser.prediction == "epsilon"


def test_a_flow_scheduler_beside_a_unet_means_diffusers_sign(folders, tmp_path):
    folder = shutil.copytree(folders["sd1"], tmp_path / "flow")
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    pipelines.edit(
        folder / "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"]
    )
    flow, opposite = load_latent(folder), load_latent(folders["instaflow"])
    assert flow.denoiser.prediction == "flow"
    x = pipelines.noise(flow)
    assert relative(flow.denoiser(x, 0.5) - x, x - opposite.denoiser(x, 0.5)) < 1e-5


def test_a_scheduler_without_a_table_is_refused():
    pipeline = pipelines.stable_diffusion()
    pipeline.scheduler = diffusers.EDMEulerScheduler()
    with pytest.raises(InputError, match="Karras's preconditioning, and DDIM's table would mis"):
        load_latent(pipeline)
    pipeline.scheduler = diffusers.ScoreSdeVeScheduler()
    with pytest.raises(InputError, match="ScoreSdeVeScheduler has no table alphas_cumprod"):
        load_latent(pipeline)
