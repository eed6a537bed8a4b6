"""Methods of others for inverse problems, each in a file after its paper, with its settings."""
