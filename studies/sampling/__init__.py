"""Studies of constrained sampling in pixels."""
