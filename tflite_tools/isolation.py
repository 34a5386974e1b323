"""Starting modules of this product in processes of their own, which import nothing by accident.

`python -m` searches the working directory first, and a variable like PYTHONPATH may name any
folder. A `statistics.py` there, whatever it is for, would be executed in the place of Python's. So
each process starts in isolated mode (`python -I`) and is told where to search: in the standard
library, where this product lies, where the caller's process searches, and only then in the
working directory and in the folder of the caller's script.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

# The child's arguments: the search path as JSON, the module, the module's arguments.
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(module: str, arguments: Sequence[str]) -> list[str]:
    """Returns the command that runs a module in isolation.

    Args:
        module: full name of a module; its package must be imported.
        arguments: arguments of the module's command line.
    """
    path = search_path(module.partition(".")[0])
    return [sys.executable, "-I", "-c", _START, json.dumps(path), module, *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Returns this process's environment without Python's own variables.

    Args:
        **changes: variables to set.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, **changes}


def search_path(package: str) -> list[str]:
    """Returns the folders in which a child searches for modules, all of them absolute.

    Args:
        package: name of the imported package that the child is to find where this process did.
    """
    home = str(Path(str(sys.modules[package].__file__)).resolve().parent.parent)
    script = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    # Python puts one of these first by itself; nobody may have asked for it.
    accidental = {os.path.abspath(""), os.path.dirname(os.path.abspath(script))}
    standard = _standard_library()

    def rank(folder: str) -> int:
        if folder in standard:
            return 0
        return 1 if folder == home else 3 if folder in accidental else 2

    folders = dict.fromkeys([home, *map(os.path.abspath, sys.path)])
    return sorted(folders, key=rank)


def _standard_library() -> set[str]:
    homes = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    beside = {str(Path(home).parent / archive) for home in homes}
    return homes | {os.path.join(home, "lib-dynload") for home in homes} | beside
