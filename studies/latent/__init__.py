"""Studies of latent models."""
