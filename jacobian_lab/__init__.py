"""The Jacobian of a diffusion model's denoiser, and constrained sampling with inexact Newton steps.

network + schedule -> Denoiser -> JacobianOperator -> audit, eigenpairs, asymmetry,
newton_direction
                      Denoiser + constraint -> Newton -> sample
"""

from jacobian_lab.constraints import (
    masks,
)
from jacobian_lab.constraints.base import Constraint
from jacobian_lab.constraints.decoded import Decoded, latent_inpainting
from jacobian_lab.constraints.linear import Inpainting, LinearMap, blur
from jacobian_lab.constraints.losses import Loss, class_label, segmentation, style
from jacobian_lab.constraints.separable import gaussian_blur, super_resolution
from jacobian_lab.derivative.trainable import Linearised, linearise
from jacobian_lab.diffusion.adapters.azula import to_azula
from jacobian_lab.diffusion.adapters.deepinv import to_deepinv
from jacobian_lab.diffusion.adapters.door import load
from jacobian_lab.diffusion.adapters.text_to_image import load_latent
from jacobian_lab.diffusion.continuous import (
    ContinuousSchedule,
    RectifiedFlow,
    SubVariancePreserving,
    TrigonometricFlow,
    VarianceExploding,
    VariancePreserving,
)
from jacobian_lab.diffusion.denoiser import Denoiser
from jacobian_lab.diffusion.guidance import guided
from jacobian_lab.diffusion.latent import Latent
from jacobian_lab.diffusion.oracle import GaussianMixture, gaussian
from jacobian_lab.diffusion.prediction import EDM, Preconditioning
from jacobian_lab.diffusion.schedule import DiscreteSchedule, Schedule
from jacobian_lab.errors import ConvergenceWarning, DerivativeWarning, DivergenceError, InputError
from jacobian_lab.krylov.certificates import Eigenpairs
from jacobian_lab.krylov.eigen import eigenpairs
from jacobian_lab.krylov.estimates import asymmetry, diagonal, frobenius_norm, trace
from jacobian_lab.krylov.factorisation import Arnoldi, arnoldi
from jacobian_lab.krylov.hutchinson import Estimate
from jacobian_lab.krylov.least_squares import Solution, gmres, lsmr, lstsq
from jacobian_lab.krylov.pseudospectra import bendixson_box, numerical_range, pseudospectrum
from jacobian_lab.krylov.singular import SingularValues, singular_values
from jacobian_lab.linops.auditing import audit
from jacobian_lab.linops.batch_jacobian import BatchJacobian
from jacobian_lab.linops.convention import check_convention
from jacobian_lab.linops.cumulants import PosteriorMoments, posterior_moments
from jacobian_lab.linops.densities import Density, maximum_entropy
from jacobian_lab.linops.function_operator import FunctionOperator, inner_layer, operator_of
from jacobian_lab.linops.jacobian import (
    JacobianOperator,
    posterior_covariance,
    restriction,
    skew_part,
    symmetric_part,
)
from jacobian_lab.linops.report import Report
from jacobian_lab.sampling.newton import Newton, dynamic_step_size, newton_direction
from jacobian_lab.sampling.sampler import State, sample, seeded_noise
from jacobian_lab.sampling.step_size import (
    Backtracking,
    Dynamic,
    ExactMinimiser,
    Fixed,
    PerError,
    Secant,
    Spectral,
    StepSize,
)

__version__ = "0.2.0"

__all__ = [
    "EDM",
    "Arnoldi",
    "Backtracking",
    "BatchJacobian",
    "Constraint",
    "ContinuousSchedule",
    "ConvergenceWarning",
    "Decoded",
    "Denoiser",
    "Density",
    "DerivativeWarning",
    "DiscreteSchedule",
    "DivergenceError",
    "Dynamic",
    "Eigenpairs",
    "Estimate",
    "ExactMinimiser",
    "Fixed",
    "FunctionOperator",
    "GaussianMixture",
    "Inpainting",
    "InputError",
    "JacobianOperator",
    "Latent",
    "LinearMap",
    "Linearised",
    "Loss",
    "Newton",
    "PerError",
    "PosteriorMoments",
    "Preconditioning",
    "RectifiedFlow",
    "Report",
    "Schedule",
    "Secant",
    "SingularValues",
    "Solution",
    "Spectral",
    "State",
    "StepSize",
    "SubVariancePreserving",
    "TrigonometricFlow",
    "VarianceExploding",
    "VariancePreserving",
    "__version__",
    "arnoldi",
    "asymmetry",
    "audit",
    "bendixson_box",
    "blur",
    "check_convention",
    "class_label",
    "diagonal",
    "dynamic_step_size",
    "eigenpairs",
    "frobenius_norm",
    "gaussian",
    "gaussian_blur",
    "gmres",
    "guided",
    "inner_layer",
    "latent_inpainting",
    "linearise",
    "load",
    "load_latent",
    "lsmr",
    "lstsq",
    "masks",
    "maximum_entropy",
    "newton_direction",
    "numerical_range",
    "operator_of",
    "posterior_covariance",
    "posterior_moments",
    "pseudospectrum",
    "restriction",
    "sample",
    "seeded_noise",
    "segmentation",
    "singular_values",
    "skew_part",
    "style",
    "super_resolution",
    "symmetric_part",
    "to_azula",
    "to_deepinv",
    "trace",
]


def __dir__() -> list[str]:
    return __all__
