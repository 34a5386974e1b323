"""The writer of RESULTS.md and of the tables in the pages: one module for each subject."""
