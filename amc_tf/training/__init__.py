"""The user's data and training code."""
