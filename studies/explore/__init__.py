"""The Jacobian under one's finger: `jacobian-lab explore`, a page in the browser."""
