"""The writer of RESULTS.md and of the tables in README.md: one module for each subject."""
