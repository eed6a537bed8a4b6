"""Small MNIST diffusion models on which the Jacobian is tractable: data, networks, training,
judgement, weights.
"""

from mnist.data import digits
from mnist.latent import load_latent
from mnist.weights import load_classifier, load_denoiser

__all__ = ["digits", "load_classifier", "load_denoiser", "load_latent"]
