"""Constraints on a clean sample, in pixels or through a decoder."""
