"""What is wanted of a clean sample, in pixels or through a decoder."""
