"""The Jacobian of a diffusion model's denoiser, and constrained sampling with inexact Newton steps.

    network + schedule -> Denoiser -> JacobianOperator -> audit, { spectrum, symmetry, solve } -> newton_direction
"""

from jacobian_lab.arnoldi import Arnoldi, arnoldi
from jacobian_lab.audit import audit
from jacobian_lab.denoiser import Denoiser, guided
from jacobian_lab.errors import ConvergenceWarning, DerivativeWarning, InputError
from jacobian_lab.linops import JacobianOperator, posterior_covariance, restriction, skew_part, symmetric_part
from jacobian_lab.newton import dynamic_step_size, newton_direction
from jacobian_lab.pseudospectra import bendixson_box, numerical_range, pseudospectrum
from jacobian_lab.schedule import DiscreteSchedule, RectifiedFlow, Schedule
from jacobian_lab.singular import SingularValues, singular_values
from jacobian_lab.spectrum import Eigenpairs, eigenpairs
from jacobian_lab.symmetry import Estimate, asymmetry, diagonal, frobenius_norm, trace

__all__ = [
    "Arnoldi", "ConvergenceWarning", "Denoiser", "DerivativeWarning", "DiscreteSchedule", "Eigenpairs", "Estimate",
    "InputError", "JacobianOperator", "RectifiedFlow", "Schedule", "SingularValues", "arnoldi", "asymmetry", "audit",
    "bendixson_box", "diagonal", "dynamic_step_size", "eigenpairs", "frobenius_norm", "guided", "newton_direction",
    "numerical_range", "posterior_covariance", "pseudospectrum", "restriction", "singular_values", "skew_part",
    "symmetric_part", "trace",
]
