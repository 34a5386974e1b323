"""The model as groups of channels that live or die together."""
