"""Packaging of amc_tf; what it says is in pyproject.toml."""

from setuptools import setup

setup()
