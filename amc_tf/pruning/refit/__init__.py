"""Weights of a pruned network restored by least squares."""
