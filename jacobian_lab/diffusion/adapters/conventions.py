r"""What the network of a diffusers pipeline predicts, and at which time.

    pipeline                        schedule          t      network gets    and predicts
    Stable Diffusion 1, 2, XL, DiT  alphas_cumprod    0 ...  t               as the scheduler says
    PixArt                          alphas_cumprod    0 ...  t               as the scheduler says
    Stable Diffusion 3              rectified flow    (0,1]  1000 t          noise - x_0
    Sana                            rectified flow    (0,1]  1000 t scale    noise - x_0
    FLUX, AuraFlow                  rectified flow    (0,1]  t               noise - x_0
    Lumina 2                        rectified flow    (0,1]  1 - t           x_0 - noise
    InstaFlow                       rectified flow    (0,1]  1000 t          x_0 - noise

The `shift` of a flow's scheduler only says which times a sampler visits; D does not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from jacobian_lab.diffusion.adapters.family import classes
from jacobian_lab.diffusion.adapters.pipelines import INSTAFLOW, Opened
from jacobian_lab.diffusion.continuous import RectifiedFlow
from jacobian_lab.diffusion.prediction import Prediction
from jacobian_lab.diffusion.schedule import DiscreteSchedule, Schedule
from jacobian_lab.errors import InputError

Said: TypeAlias = Prediction | Literal["instaflow"]
DIFFUSERS_NAMES: dict[Any, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "sample": "sample",
}
"""diffusers' `prediction_type` -> ours; its flow, "flow_prediction", has no table of alphas."""


@dataclass(frozen=True)
class Convention:
    """What a network predicts, and at which time: all that the Denoiser needs beside the
    network.
    """

    schedule: Schedule
    prediction: Prediction
    time_scale: float = 1
    """The network gets `t * time_scale`, or one minus that."""
    backwards: bool = False
    """Whether the network's time is 1 for the clean sample."""
    sign: int = 1
    """-1 where the network predicts `x_0 - noise`."""

    def time(self, t: Tensor) -> Tensor:
        """Return the network's time."""
        scaled = t * self.time_scale
        return 1 - scaled if self.backwards else scaled


def read_convention(opened: Opened, said: Said | None) -> Convention:
    """Read what the network predicts; what the user says must agree, except that "instaflow"
    overrides the scheduler.

    Raises
    ------
    InputError
        If the pipeline does not tell, contradicts the user, or comes from InstaFlow with a
        scheduler that knows nothing of it.
    """
    scheduler, origin = opened.pipeline.scheduler, opened.origin
    if said is not None and said not in (*get_args(Prediction), "instaflow"):
        raise InputError(
            f"unknown prediction {said!r}: expected one of {', '.join(get_args(Prediction))},"
            " instaflow"
        )
    if opened.kind in INSTAFLOW and said not in (None, "instaflow"):
        raise InputError(
            f"prediction={said!r}, but a {opened.kind} predicts x_0 - noise: leave it out"
        )
    if opened.kind in INSTAFLOW or said == "instaflow":
        return _flow(opened, sign=-1)
    kind = type(scheduler).__name__
    found = _flow(opened) if is_flow(scheduler) else read_table(scheduler)
    if said is None and any(word in origin.lower() for word in ("instaflow", "rectified_flow")):
        raise InputError(
            f"the weights come from {origin}, but the scheduler ({kind}) says {found.prediction!r},"
            ' as in InstaFlow\'s release. Pass prediction="instaflow" if the network predicts x_0'
            f" - noise, or prediction={found.prediction!r} if the scheduler is right"
        )
    if said not in (None, found.prediction):
        raise InputError(
            f"prediction={said!r}, but the scheduler ({kind}) says {found.prediction!r}: leave it"
            " out, or correct scheduler/scheduler_config.json"
        )
    return found


def is_flow(scheduler: Any) -> bool:
    """Return whether a scheduler of diffusers is of a rectified flow with data at 0, or raise if
    they are at 1, or the path is another.
    """
    matching = any(name.startswith("FlowMatch") for name in classes(scheduler))
    flow = matching or scheduler.config.get("prediction_type") == "flow_prediction"
    if flow and not matching and not scheduler.config.get("use_flow_sigmas"):
        raise InputError(
            f"{type(scheduler).__name__} has prediction_type 'flow_prediction' without"
            " use_flow_sigmas: its path is that of its table, which no flow has"
        )
    if flow and scheduler.config.get("invert_sigmas"):
        raise InputError(
            f"{type(scheduler).__name__} has invert_sigmas, time the other way round: expected data"
            " at 0"
        )
    return flow


def _flow(opened: Opened, sign: int = 1) -> Convention:
    scheduler = opened.pipeline.scheduler
    if opened.kind in ("FluxPipeline", "AuraFlowPipeline"):
        return Convention(RectifiedFlow(), "flow")
    if opened.kind == "Lumina2Pipeline":
        return Convention(RectifiedFlow(), "flow", backwards=True, sign=-1)
    scale = int(scheduler.config.num_train_timesteps)
    if opened.kind == "SanaPipeline":
        return Convention(RectifiedFlow(), "flow", scale * opened.network.config.timestep_scale)
    return Convention(RectifiedFlow(), "flow", scale, sign=sign)


def read_table(scheduler: Any) -> Convention:
    """Return the convention of a scheduler of diffusers with a table of alphas, or raise."""
    name, said = type(scheduler).__name__, scheduler.config.get("prediction_type")
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None and name.startswith("EDM"):
        raise InputError(
            f"{name} is of Karras's preconditioning, and DDIM's table would misread the network:"
            " write Denoiser(network, VarianceExploding(sigma_max, sigma_min), EDM(sigma_data),"
            " shape)"
        )
    if table is None:
        raise InputError(
            f"{name} has no table alphas_cumprod, and is no flow: expected a scheduler such as"
            " DDIMScheduler or FlowMatchEulerDiscreteScheduler"
        )
    if said not in DIFFUSERS_NAMES:
        raise InputError(
            f"the scheduler's prediction_type is {said!r}: expected one of"
            f" {', '.join(DIFFUSERS_NAMES)}, flow_prediction (scheduler/scheduler_config.json)"
        )
    if scheduler.config.get("use_flow_sigmas"):
        raise InputError(
            f"{name} has use_flow_sigmas, the path of a flow, with prediction_type {said!r}, which"
            " is of its table: expected flow_prediction, or no use_flow_sigmas"
        )
    if scheduler.config.get("timestep_type") == "continuous" and said == "v_prediction":
        raise InputError(
            f"{name} has timestep_type 'continuous': its network gets ln(sigma) / 4, not the index"
            " of the table. Write Denoiser(network, VarianceExploding(sigma_max, sigma_min), ...)"
            " with a Preconditioning that says so"
        )
    table = torch.as_tensor(table).clone()
    if scheduler.config.get("rescale_betas_zero_snr"):
        table[-1] = 0.0  # some put 2^-24, which can lie above the entry before it
    return Convention(DiscreteSchedule(table), DIFFUSERS_NAMES[said])
