"""Packages whose public names are loaded from their modules on first use (PEP 562).

Importing a package must not import its modules, for two reasons: a command's `--help` should not
wait for TensorFlow, and the agent's process imports this product without Keras 3.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as type checkers know it; importing typing takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def front_door(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes a package's `__getattr__`, `__dir__` and `__all__`.

    Type checkers do not follow this, so the package imports the same names once more under
    `if TYPE_CHECKING:` (`tests/test_public_api.py` compares the two lists).

    Args:
        package: the package's `__name__`.
        homes: mapping from the full name of a module to the public names that it defines,
            separated by spaces.

    Returns:
        The package's `__getattr__`, `__dir__` and `__all__`.
    """
    home = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home[name]), name)

    names = sorted(home)
    return load, lambda: names, names
