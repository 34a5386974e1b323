"""Fine-grained pruning: single weights instead of channels (AMC, section 3.2 and table 5)."""
