"""Fingerprints of what a user provides: data by content, code by what it compiles to.

A run is resumed only with the data and code that it began with. A fingerprint is made of JSON
values, and parts of it have names, so that a message can say which part differs.

What cannot be seen: the contents of data that changes from pass to pass (augmented images, a
shuffled dataset of more than `MOST_BYTES`), of which only the shapes and the length count; the
functions that a user's function calls; and the state of objects that it refers to, but for
settings: numbers, words, and mappings and namespaces of them.
"""

from __future__ import annotations

import argparse
import dis
import functools
import hashlib
import inspect
import itertools
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.training.arrays import rows

# Bytes of an array, and of a pass over batches, that are read.
MOST_BYTES = 256 * 2**20
_SLICE_BYTES = 2**24  # of a large array are read at a time
_ROWS = 4096  # most of the evenly spaced samples of a larger array

_PARTS = ("inputs", "labels", "sample weights")
# Which label and weight belongs to which input, of batches. Earlier versions did not tell it.
PAIRS = "pairs of inputs and labels"

# Packages whose code is told by their version.
_PACKAGES = ("builtins", "keras", "tensorflow", "tf_keras", "numpy", "torch", "amc_tf")
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)


def of_data(data: Any) -> dict[str, Any] | None:
    """Returns the fingerprint of data in any form that a `Task` takes; None of no data.

    Of arrays, all bytes count up to `MOST_BYTES`, of larger ones an even sample. Batches are read
    twice up to that size; samples count in any order, and only if both passes hold the same.
    """
    if data is None:
        return None
    if _is_arrays(data):
        parts = data if isinstance(data, tuple) else (data,)
        return {
            "form": "arrays",
            **{name: _of_arrays(part) for name, part in zip(_PARTS, parts, strict=False)},
        }
    first, second = _of_batches(data), _of_batches(data)
    stable = {name: value for name, value in first.items() if second.get(name) == value}
    return {"form": "batches", "length": _length(data), **stable}


def of_weights(values: Sequence[Any]) -> str:
    """Returns a hash of arrays."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        _update(digest, np.asarray(value))
    return digest.hexdigest()


def of_code(value: Any) -> Any:
    """Returns what can be told of a function, an object or a setting, as JSON values.

    Functions are told apart by their name, their code, their defaults and the values that they
    enclose; objects by their class and their attributes.
    """
    return _described(value, 0)


def _is_arrays(data: Any) -> bool:
    leaves = keras.tree.flatten(data) if isinstance(data, (tuple, list, dict)) else [data]
    if isinstance(data, list):  # batches, or the arrays of several inputs
        return all(hasattr(leaf, "shape") for leaf in data)
    return all(hasattr(leaf, "shape") or leaf is None or np.isscalar(leaf) for leaf in leaves)


def _of_arrays(structure: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(str(keras.tree.map_structure(lambda _: 0, structure)).encode())
    for leaf in keras.tree.flatten(structure):
        digest.update(f"{np.shape(leaf)}".encode())
        _update(digest, leaf)
    return digest.hexdigest()


def _update(digest: Any, leaf: Any) -> None:
    size = getattr(leaf, "nbytes", 0)
    chosen = None
    if size > MOST_BYTES:
        count = max(2, min(_ROWS, MOST_BYTES // 4 * len(leaf) // size))
        chosen = np.unique(np.linspace(0, len(leaf) - 1, count).astype(int))
    if not isinstance(leaf, np.ndarray):
        leaf, chosen = np.asarray(leaf if chosen is None else leaf[chosen]), None
    shape = leaf.shape if chosen is None else (len(chosen), *leaf.shape[1:])
    digest.update(f"{shape}{leaf.dtype}".encode())
    if chosen is None and (leaf.nbytes <= _SLICE_BYTES or leaf.dtype.kind == "O"):
        digest.update(_bytes(leaf))
        return
    chosen = np.arange(len(leaf)) if chosen is None else chosen
    step = max(1, _SLICE_BYTES * len(leaf) // leaf.nbytes)
    for start in range(0, len(chosen), step):
        digest.update(_bytes(rows(leaf, chosen[start : start + step])))


def _bytes(array: np.ndarray) -> Any:
    """Returns the content of an array as a buffer, without a copy if it is contiguous."""
    if array.dtype.kind == "O":  # its bytes are addresses
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _of_batches(data: Any) -> dict[str, Any]:
    """Returns, for each part of the samples, its type and the sum of the samples' hashes."""
    sums: dict[str, int] = {}
    kinds: dict[str, str] = {}
    size = 0
    for batch in _batches(data):
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        hashes: list[list[bytes]] = []
        for name, part in zip(_PARTS, parts, strict=False):
            leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(part) if leaf is not None]
            kinds.setdefault(name, " ".join(f"{a.shape[1:]}{a.dtype}" for a in leaves))
            found = [_of_sample(samples) for samples in zip(*leaves, strict=True)]
            _add(sums, name, found)
            hashes += [found] if leaves else []
            size += sum(leaf.nbytes for leaf in leaves)
        if len(hashes) > 1 and len(set(map(len, hashes))) == 1:
            together = zip(*hashes, strict=True)
            _add(sums, PAIRS, [_of_sample([np.frombuffer(b"".join(h), "u1")]) for h in together])
        if size > MOST_BYTES:
            break
    told: dict[str, Any] = {f"kind of {name}": kind for name, kind in kinds.items()}
    return told | {name: f"{total % 2**64:016x}" for name, total in sums.items()}


def _of_sample(arrays: Sequence[Any]) -> bytes:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(_bytes(np.asarray(array)))
    return digest.digest()


def _add(sums: dict[str, int], name: str, hashes: Sequence[bytes]) -> None:
    """Adds the hashes of samples to a sum, which their order does not matter to."""
    if hashes:
        sums[name] = sums.get(name, 0) + sum(int.from_bytes(h, "little") for h in hashes)


def _batches(data: Any) -> Iterator[Any]:
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(data.num_batches or 0))
    return itertools.islice(iter(data), 1_000_000)


def _length(data: Any) -> int | None:
    """Returns the number of batches; None where only a pass can tell."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches
    try:
        return len(data)
    except TypeError:  # a tf.data.Dataset that is endless or does not know
        return None


def _described(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth > 6:
        return type(value).__qualname__
    inner = functools.partial(_described, depth=depth + 1)
    if isinstance(value, Mapping):
        return {str(key): inner(item) for key, item in value.items()}
    if isinstance(value, _NAMESPACES):
        return inner(vars(value))
    if isinstance(value, (list, tuple)):
        return [inner(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, map(inner, value)))
    if isinstance(value, types.CodeType):
        return _of_bytecode(value)
    if isinstance(value, functools.partial):
        return inner([value.func, value.args, value.keywords])
    if isinstance(value, types.MethodType):
        return inner([value.__func__, value.__self__])
    if isinstance(value, types.FunctionType):
        return [_name(value), inner(_parts(value))]
    if isinstance(value, (type, types.BuiltinFunctionType)):
        return _name(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return of_weights([value])
    methods = of_methods(type(value))
    return [_name(type(value)), _state(value, inner), *([methods] if methods else [])]


def of_methods(kind: type, names: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the code of a class of the user's, by the names of its methods.

    Args:
        kind: the class; of one of Keras or another package, nothing is told.
        names: the methods to tell of; all, and the settings of the class, if there are none.
    """
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if _name(base).split(".")[0] in _PACKAGES:
            continue
        for name, value in vars(base).items():
            if names and name not in names:
                continue
            function = getattr(value, "fget", None) or getattr(value, "__func__", value)
            function = inspect.unwrap(function) if callable(function) else function
            if isinstance(function, types.FunctionType):
                found.setdefault(name, _of_bytecode(function.__code__))
            elif not name.startswith("__") and _is_setting(value):
                found.setdefault(name, _described(value, 0))
    return found


def _parts(function: types.FunctionType) -> list[Any]:
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            cells.append(None)
    # What is enclosed may be the whole data or a model; these have fingerprints of their own.
    enclosed = [cell for cell in cells if _is_setting(cell)]
    more = (function.__kwdefaults__, _globals(function))
    return [function.__code__, function.__defaults__, enclosed, *(part for part in more if part)]


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """Returns the settings among the global values that a function reads: `EPOCHS`, `args`."""
    code = function.__code__
    names = _names(code, "LOAD_GLOBAL", "LOAD_NAME") - _names(code, "STORE_GLOBAL")
    values = {name: function.__globals__.get(name) for name in names}
    # A global list may be a record of what was done, and a function is code that it calls.
    apart = (list, types.FunctionType)
    return {
        name: value
        for name, value in sorted(values.items())
        if value is not None and not isinstance(value, apart) and _is_setting(value)
    }


def _names(code: types.CodeType, *operations: str) -> set[str]:
    """Returns the names that operations of some bytecode read or write."""
    found = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in operations
    }
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return found.union(*(_names(constant, *operations) for constant in inner))


def _is_setting(value: Any) -> bool:
    """Returns whether a value is one that says how to train, rather than data or state."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_setting, value))
    if isinstance(value, _NAMESPACES):
        value = vars(value)
    if isinstance(value, Mapping):  # an empty one is there to be filled
        return bool(value) and all(map(_is_setting, value.values()))
    plain = (bool, int, float, str, np.generic, types.FunctionType)
    return value is None or isinstance(value, plain)


def _of_bytecode(code: types.CodeType) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(code.co_code)
    digest.update(repr(code.co_names).encode())
    for constant in code.co_consts:
        inner = isinstance(constant, types.CodeType)
        told = _of_bytecode(constant) if inner else _constant(constant)
        digest.update(told.encode())
    return digest.hexdigest()


def _constant(constant: Any) -> str:
    # The order of a set differs from process to process.
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def _state(value: Any, described: Callable[[Any], Any]) -> Any:
    """Returns the configuration of an object of Keras, or the settings among its attributes."""
    if callable(getattr(value, "get_config", None)):
        try:
            config = dict(value.get_config())
        except Exception:  # a class of the user's that cannot say
            return _settings_of(value, described)
        return described(_unnumbered(config))
    return _settings_of(value, described)


def _settings_of(value: Any, described: Callable[[Any], Any]) -> dict[str, Any]:
    attributes = _unnumbered(getattr(value, "__dict__", {}))
    return {name: described(item) for name, item in sorted(attributes.items()) if _is_setting(item)}


def _unnumbered(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration whose name has no number: Keras counts adam, adam_1, ..."""
    return {
        key: re.sub(r"_\d+$", "", value)
        if key in ("name", "_name") and isinstance(value, str)
        else value
        for key, value in config.items()
    }


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', repr(value))}"
