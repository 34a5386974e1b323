"""Front doors of packages: their public names, each loaded from its module on first use (PEP 562).

A command's `--help` must not wait for TensorFlow, and the agent's process imports this product
without Keras 3: importing a package may not import its modules.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def front_door(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes a package's `__getattr__`, `__dir__` and `__all__`.

    Type checkers do not see through this: the package imports the same names once more under
    `if TYPE_CHECKING:` (`tests/test_public_api.py` compares the two).

    Args:
        package: its `__name__`.
        homes: full name of a module to the public names that it defines, separated by spaces.
    """
    home = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home[name]), name)

    names = sorted(home)
    return load, lambda: names, names
