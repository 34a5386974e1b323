"""A run's files as tables, charts and one page."""
