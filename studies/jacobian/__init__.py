"""Studies of J itself: spectrum, symmetry, accuracy, directions."""
