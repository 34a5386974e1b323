"""Keras 2 models in and out."""
