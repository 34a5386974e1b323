"""The commands, one module each.

Each module defines its flags and calls one function of the package. An error becomes one sentence
and exit status 1. No other package imports this one.
"""
