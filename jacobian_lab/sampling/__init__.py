"""The Newton step, its step sizes, and the sampler that takes it."""
