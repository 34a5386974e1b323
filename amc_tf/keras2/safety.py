"""Finding code in Keras 2 files before any of it is executed.

Keras 2 (tf_keras) no longer gets fixes: loading its files can execute bytecode
of a Lambda layer, import any module that a configuration names, and call any
function of TensorFlow. Here the configuration is only read as data.
"""

from __future__ import annotations

import builtins
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py

from amc_tf.errors import AmcError

# Namespaces of TensorFlow's API whose functions only compute; "" is the top level, where most do.
_COMPUTING = frozenset(
    "__operators__ audio bitwise dtypes image linalg math nn quantization ragged random sets "
    "signal sparse strings".split()
) | {""}
# Functions at the top level that call Python, read or write files, or load libraries.
_ACTING = frozenset(
    "function import_graph_def load_file_system_library load_library load_op_library "
    "matching_files numpy_function print py_func py_function read_file write_file".split()
)
_FUNCTION_LAYERS = frozenset("TFOpLambda SlicingOpLambda ClassMethod".split())
# Modules of Keras whose functions only compute.
_FUNCTIONS = frozenset("activations losses metrics".split())
_ALLOW = (
    "if you trust where it comes from, allow it by safe_mode=False (--unsafe in commands that "
    "load models)"
)


def only_computes(symbol: str) -> bool:
    """Returns whether a function of TensorFlow's API, named without `tf.`, only computes."""
    symbol = symbol.removeprefix("compat.").removeprefix("v1.").removeprefix("v2.")
    namespace, _, name = symbol.rpartition(".")
    return namespace.split(".")[0] in _COMPUTING and (bool(namespace) or name not in _ACTING)


def refuse_code(path: pathlib.Path) -> None:
    """Raises an error if loading a Keras 2 file would execute more than layers of Keras.

    Args:
        path: an existing .h5 or .keras file, or a SavedModel folder.

    Raises:
        AmcError: the file is a SavedModel (a TensorFlow program), or holds a Lambda layer,
            a class that is neither part of Keras nor registered, or a TensorFlow
            function that does more than compute.
    """
    if path.is_dir():
        raise AmcError(
            f"{path} is a SavedModel, a TensorFlow program that may do anything when it is loaded; "
            f"{_ALLOW}"
        )
    for entry in _objects(_configurations(path)):
        found = _acts(entry)
        if found:
            raise AmcError(f"{path} holds {found}, which loading could execute; {_ALLOW}")


def _configurations(path: pathlib.Path) -> list[Any]:
    """Returns the configurations that either format would read: a file can have both formats."""
    found = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found.append(json.loads(archive.read("config.json")))
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            found.append(json.loads(file.attrs.get("model_config", "{}")))
    return found


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yields every object in configurations that names a class or function."""
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _objects(child)


def _acts(entry: dict[str, Any]) -> str:
    """Returns what a configuration's object would execute, in words; empty if nothing."""
    import tf_keras

    name, module = str(entry["class_name"]), entry.get("module")
    config = entry.get("config")
    if name in ("Lambda", "__lambda__"):
        return "a Python function (Lambda)"
    if name in _FUNCTION_LAYERS and isinstance(config, dict):
        symbol = config.get("function", config.get("cls_symbol", "__operators__.getitem"))
        return "" if only_computes(str(symbol)) else f"a call of tf.{symbol}"
    registered = config if name == "function" else entry.get("registered_name") or name
    if tf_keras.saving.get_registered_object(str(registered)) is not None:
        return ""
    root, *rest = str(module or "keras").split(".")
    # A lower-case name is that of a function.
    known = root in ("keras", "tf_keras") and not name[0].islower()
    if name == "function":
        builtin = root == "builtins" and not hasattr(builtins, str(config))
        known = builtin or (root in ("keras", "tf_keras") and rest[-1:] and rest[-1] in _FUNCTIONS)
    return "" if known else f"{registered!r} of the module {module!r}"
