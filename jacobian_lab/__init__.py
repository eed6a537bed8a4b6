"""The Jacobian of a diffusion model's denoiser, and constrained sampling with inexact Newton steps.

    network + schedule -> Denoiser -> JacobianOperator -> solve -> newton_direction
"""

from jacobian_lab.arnoldi import Arnoldi, arnoldi
from jacobian_lab.audit import audit
from jacobian_lab.denoiser import Denoiser, guided
from jacobian_lab.errors import ConvergenceWarning, InputError
from jacobian_lab.linops import JacobianOperator, posterior_covariance, restriction, skew_part, symmetric_part
from jacobian_lab.newton import dynamic_step_size, newton_direction
from jacobian_lab.schedule import DiscreteSchedule, RectifiedFlow, Schedule
from jacobian_lab.spectrum import Eigenpairs, eigenpairs
from jacobian_lab.symmetry import Estimate, asymmetry, frobenius_norm, trace

__all__ = [
    "Arnoldi", "ConvergenceWarning", "Denoiser", "DiscreteSchedule", "Eigenpairs", "Estimate", "InputError",
    "JacobianOperator", "RectifiedFlow", "Schedule", "arnoldi", "asymmetry", "audit", "dynamic_step_size", "eigenpairs",
    "frobenius_norm", "guided", "newton_direction", "posterior_covariance", "restriction", "skew_part",
    "symmetric_part", "trace",
]
