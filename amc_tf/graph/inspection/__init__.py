"""The groups of a model as text, DOT and HTML."""
