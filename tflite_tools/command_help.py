"""The help and the version of a command that pip has installed."""

from __future__ import annotations

import importlib.metadata
import sys

from absl import flags

PACKAGE = "amc_tf"


def version() -> str:
    """Returns the version that is installed; of sources that are not installed, that word."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "from its sources"


def introduce(about: str | None) -> None:
    """Answers `--version`, and lets `--help` show a text and all flags that are not absl's own.

    absl would take both from the module `__main__`, which is only the start of the command where
    pip has installed one.

    Args:
        about: the text: the docstring of the command's module.
    """
    if "version" not in flags.FLAGS:  # a process may run several commands, one after another
        flags.DEFINE_bool("version", False, "Print the version and exit.")
    if {"--version", "-version"}.intersection(sys.argv[1:]):
        print(f"{PACKAGE} {version()}")
        sys.exit()
    sys.modules["__main__"].__doc__ = about
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if not module.startswith("absl."):
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
