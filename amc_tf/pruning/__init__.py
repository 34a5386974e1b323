"""A plan carried out: the smaller network, or the same one with its channels masked."""
