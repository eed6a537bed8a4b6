"""Models that people have, each to a `Denoiser` or a `Latent`: one file for each family, one door
(`door.load`).
"""
