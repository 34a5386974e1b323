"""Folders of the sources."""

import pathlib

TESTS = pathlib.Path(__file__).resolve().parent.parent
HELPERS = TESTS / "helpers"
DATA = TESTS / "data"
ROOT = TESTS.parent
