"""The stages of a compression and their resumption."""
