"""Everything that proposes how much to keep."""
