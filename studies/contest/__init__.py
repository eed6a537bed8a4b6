"""The contest: our sampler and its peers on linear inverse problems."""
