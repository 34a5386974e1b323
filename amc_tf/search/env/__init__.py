"""Decisions under a budget: state in, counts out, reward at the end."""
