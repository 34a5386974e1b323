"""Scripts that measure, each run as `python benchmarks/NAME.py`; `report` writes the tables."""
