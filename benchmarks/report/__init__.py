"""RESULTS.md and the tables of README.md, written from results/*.jsonl: a module a subject."""
