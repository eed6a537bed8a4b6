"""The Jacobian of a diffusion model's denoiser, and constrained sampling with inexact Newton steps.

    network + schedule -> Denoiser -> JacobianOperator -> solve -> Newton direction
"""

from jacobian_lab.denoiser import Denoiser, guided
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.schedule import DiscreteSchedule, RectifiedFlow, Schedule

__all__ = ["ConvergenceWarning", "Denoiser", "DiscreteSchedule", "InputError", "RectifiedFlow", "Schedule", "guided"]
