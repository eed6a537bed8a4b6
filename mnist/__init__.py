"""Small MNIST diffusion models on which the Jacobian is tractable: data, networks, training, judgement, weights."""
