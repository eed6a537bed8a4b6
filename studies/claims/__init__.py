"""Published claims about the Jacobian of a denoiser: each a study that asserts its method on an
oracle, measures the claim on digits, and says whether it holds.
"""
