"""The provenance of a result: its command and versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import pathlib
import platform
import shlex
import sys

_DISTRIBUTIONS = [
    "amc_tf",
    "tensorflow",
    "keras",
    "tf-agents",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tensorflow-model-optimization",
    "numpy",
]


def command() -> str:
    """Returns the command line of this process, in a form that can be typed again."""
    program, *arguments = sys.orig_argv
    if arguments and pathlib.Path(arguments[0]).name.startswith("amc-"):
        program, *arguments = arguments  # a console script is an argument of Python
    return shlex.join([pathlib.Path(program).name, *arguments])


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages on which a result depends."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
