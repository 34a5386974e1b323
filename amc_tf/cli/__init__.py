"""The commands, one module each.

A module defines its flags and calls one function of the package; an error becomes one sentence and
exit status 1. Nothing imports this package.
"""
