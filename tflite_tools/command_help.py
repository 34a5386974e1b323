"""The help of a command that pip has installed."""

from __future__ import annotations

import sys

from absl import flags


def show_in_help(about: str | None) -> None:
    """Lets `--help` show a text and all flags that are not absl's own.

    absl would take both from the module `__main__`, which is only the start of the command where
    pip has installed one.

    Args:
        about: the text: the docstring of the command's module.
    """
    sys.modules["__main__"].__doc__ = about
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if not module.startswith("absl."):
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
