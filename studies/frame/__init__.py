"""What every study shares: run folders, models, inputs, scores and the style of figures."""
