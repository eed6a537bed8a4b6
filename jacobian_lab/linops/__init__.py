"""The Jacobian of a denoiser as a `LinearOperator`, for one sample or a batch, and its audit."""
