"""Models: a schedule and a network as a denoiser, closed-form oracles, and diffusers' pipelines."""
