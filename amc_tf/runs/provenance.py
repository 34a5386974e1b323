"""What made a result: the command and the versions."""

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
    """The command line of this process, as it can be typed again."""
    program, *arguments = sys.orig_argv
    if arguments and pathlib.Path(arguments[0]).name.startswith("amc-"):
        program, *arguments = arguments  # a console script, which is an argument of Python's
    return shlex.join([pathlib.Path(program).name, *arguments])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
