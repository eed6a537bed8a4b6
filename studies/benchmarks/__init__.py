"""What everything costs, in ratios from one run."""
