"""Structures of arrays, of any library, read by slices of samples."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError


def is_array(value: Any) -> bool:
    """Tells whether a value is an array of samples: NumPy's, a tensor, of pandas or of SciPy."""
    has_axes = len(getattr(value, "shape", ())) > 0
    return has_axes and (hasattr(value, "dtype") or hasattr(value, "iloc"))


def is_arrays(value: Any) -> bool:
    """Tells whether a value is an array or a structure of arrays, rather than batches.

    A list of lists, tuples or dicts is a list of batches.
    """
    if isinstance(value, (list, tuple)):
        return bool(value) and not isinstance(value[0], (list, tuple, dict))
    return is_array(value) or isinstance(value, Mapping)


def as_arrays(part: Any) -> Any:
    """Returns a structure of arrays as tuples and dicts of what can be sliced by samples.

    A list of arrays is several inputs or outputs, as in Keras; a list of numbers is one array.
    Memory is shared where the library allows it.
    """
    if part is None or isinstance(part, np.ndarray):
        return part
    if isinstance(part, Mapping):
        return {key: as_arrays(value) for key, value in part.items()}
    if isinstance(part, (list, tuple)) and any(map(_holds_arrays, part)):
        return tuple(map(as_arrays, part))
    if hasattr(part, "tocsr"):
        return part.tocsr()
    if hasattr(part, "iloc"):  # Keras gives a Series of pandas a second axis
        values = part.to_numpy()
        return values[:, None] if values.ndim == 1 else values
    if hasattr(part, "detach"):  # torch
        part = part.detach().cpu()
    return np.asarray(part)


def rows(array: Any, chosen: slice | np.ndarray) -> np.ndarray:
    """Returns samples of an array; a slice of an array in memory is a view."""
    taken = array[chosen]
    if hasattr(taken, "toarray"):
        return taken.toarray()
    mapping = _mapped_file(array)
    if mapping is None:
        return taken
    taken = np.array(taken)
    # Else each page that was read once would count as memory of the process until it ends.
    mapping.madvise(mmap.MADV_DONTNEED)
    return taken


def common_length(split: str, parts: tuple[Any, Any, Any]) -> int:
    """Returns the number of samples of `(inputs, labels, sample weights)`.

    Raises:
        AmcError: the numbers differ.
    """
    names = ("inputs", "labels", "sample weights")
    lengths = [
        (name, array.shape[0] if array.shape else 0)
        for name, part in zip(names, parts, strict=True)
        if part is not None
        for array in keras.tree.flatten(part)
    ]
    if not lengths or lengths[0][0] != "inputs":
        raise AmcError(f"{split} data: expected inputs and labels, received no inputs")
    count = lengths[0][1]
    for name, other in lengths:
        if other != count:
            raise AmcError(
                f"{split} data has {count} inputs but {other} {name}; expected one for each input"
            )
    return count


def _holds_arrays(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_arrays, value))
    return isinstance(value, Mapping) or is_array(value)


def _mapped_file(array: Any) -> mmap.mmap | None:
    """Returns the file that an array is mapped from, if pages of it may be dropped and reread."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None  # not on this system
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode == "c":
            return None  # changes live in memory only
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
