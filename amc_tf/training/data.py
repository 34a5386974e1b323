"""The user's data, in every form that `fit` accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError

# (inputs, labels) arrays, or a batched tf.data.Dataset of such pairs.
Data = Any


def evenly_spaced(available: int, count: int) -> np.ndarray:
    """Returns evenly spaced indices of at most `count` samples.

    The first `count` samples of data sorted by class might all be of one class.
    """
    return np.linspace(0, available - 1, min(count, available)).astype(int)


def x_and_y(element: Any) -> tuple[Any, Any]:
    """Returns the inputs and the labels of a batch, without anything else it holds."""
    if not isinstance(element, (tuple, list)) or len(element) < 2:
        raise AmcError(
            f"expected data of pairs (inputs, labels), received {type(element).__name__}"
        )
    return element[0], element[1]


def in_batches(split: str, data: Data) -> Iterator[tuple[Any, Any]]:
    """Yields the inputs and labels of a split batch by batch; arrays are one batch."""
    if isinstance(data, tuple):
        yield x_and_y(data)
        return
    if not hasattr(data, "__iter__"):
        raise AmcError(
            f"{split} data: expected (x, y) arrays or a batched tf.data.Dataset, received "
            f"{type(data).__name__}"
        )
    empty = True
    for element in data:
        empty = False
        yield x_and_y(element)
    if empty:
        raise AmcError(f"{split} data is empty")


def inputs_of(x: Any, model: keras.Model) -> list[Any]:
    """Returns the arrays of a batch in the order of the model's inputs."""
    if isinstance(x, dict):
        names = [t.name for t in model.inputs]
        missing = [n for n in names if n not in x]
        if missing:
            raise AmcError(f"data lacks the model's input {missing[0]!r}; it has {sorted(x)}")
        return [x[n] for n in names]
    arrays = list(x) if isinstance(x, (list, tuple)) else [x]
    if len(arrays) != len(model.inputs):
        raise AmcError(f"the model has {len(model.inputs)} inputs, the data {len(arrays)}")
    return arrays


def check_shape(split: str, array: Any, tensor: Any) -> None:
    """Raises an AmcError if an array does not have the shape of a model's input."""
    shape, expected = tuple(np.shape(array)), tuple(tensor.shape)
    fits = len(shape) == len(expected) and all(
        e is None or s == e for s, e in zip(shape[1:], expected[1:], strict=True)
    )
    if not fits:
        raise AmcError(
            f"{split} data has the shape {shape}, but the model's input {tensor.name!r} expects "
            f"{expected}"
        )


def check_batch(split: str, x: Any, y: Any, model: keras.Model) -> None:
    """Raises an AmcError if the model cannot take a batch."""
    arrays = inputs_of(x, model)
    for array, tensor in zip(arrays, model.inputs, strict=True):
        if len(array) == 0:
            raise AmcError(f"{split} data is empty")
        check_shape(split, array, tensor)
        values = np.asarray(array)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise AmcError(f"{split} data holds values that are not finite; clean it first")
    if len(model.outputs) != 1 or isinstance(y, (dict, list, tuple)):
        return  # several outputs: only the user's loss knows which labels fit
    labels = np.asarray(y)
    if len(labels) != len(arrays[0]):
        raise AmcError(f"{split} data has {len(arrays[0])} inputs but {len(labels)} labels")
    units = model.outputs[0].shape[-1]
    is_class_index = labels.dtype.kind in "iu" and (labels.ndim == 1 or labels.shape[1:] == (1,))
    if is_class_index and len(model.outputs[0].shape) == 2 and units is not None and units > 1:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= units:
            raise AmcError(
                f"{split} labels range from {low} to {high}, but the model's {units} outputs "
                f"stand for labels 0 to {units - 1}"
            )
