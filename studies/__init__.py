"""Studies: each a config, a compute and a plot, behind the command `jacobian-lab`."""
