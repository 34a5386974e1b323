"""The user's data, as its model reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.training.arrays import as_arrays, is_array, is_arrays
from amc_tf.training.forms import ArrayBatches, batches_of, present

# What `Model.fit` takes, except generators; see `amc_tf.training.forms.batches_of`.
Data = Any


def evenly_spaced(available: int, count: int) -> np.ndarray:
    """Returns evenly spaced indices of at most `count` samples.

    The first `count` samples of data sorted by class might all be of one class.
    """
    return np.linspace(0, available - 1, min(count, available)).astype(int)


def in_batches(split: str, data: Data) -> Iterator[tuple[Any, Any]]:
    """Yields the inputs and labels of a split batch by batch.

    Raises:
        AmcError: the data is empty, does not end, or has no form that can be read again and again.
    """
    empty = True
    for x, y, _ in batches_of(split, data):
        empty = False
        yield x, y
    if empty:
        raise AmcError(f"{split} data is empty")


def inputs_of(x: Any, model: keras.Model) -> list[Any]:
    """Returns the arrays of a batch in the order of the model's inputs.

    An axis of size 1 at the end is added or left out to fit the model, as Keras does.
    """
    names = [t.name for t in model.inputs]
    if isinstance(x, dict):
        missing = [n for n in names if n not in x]
        if missing:
            raise AmcError(f"data lacks the model's input {missing[0]!r}; it has {sorted(x)}")
        arrays = [x[n] for n in names]
    else:
        arrays = keras.tree.flatten(x) if isinstance(x, (list, tuple)) else [x]
    if len(arrays) != len(model.inputs):
        raise AmcError(f"the model has {len(model.inputs)} inputs, the data {len(arrays)}")
    return [_of_rank(a, t.shape) for a, t in zip(arrays, model.inputs, strict=True)]


def output_names(model: keras.Model) -> list[str]:
    """Returns the names by which labels and losses are given, in the order of the outputs."""
    # A Sequential model names no outputs, and has one.
    names = list(getattr(model, "output_names", [model.name]))
    structure = getattr(model, "output", None)  # a Sequential model that was never called has none
    if isinstance(structure, dict):
        keys = {id(tensor): key for key, tensor in structure.items()}
        names = [keys.get(id(t), name) for t, name in zip(model.outputs, names, strict=True)]
    return names


def labels_of(y: Any, model: keras.Model) -> list[Any]:
    """Returns the labels of each output; None where there are none, or all are of another form."""
    names = output_names(model)
    given = [y.get(name) for name in names] if isinstance(y, dict) else keras.tree.flatten(y)
    return given if len(given) == len(names) else [None] * len(names)


def unlabelled(batch: Any, model: keras.Model) -> Any:
    """Returns the inputs of a batch that may have labels: inputs, or a pair of the two.

    As many arrays as the model has inputs, if these are several, are the inputs.
    """
    if not isinstance(batch, (list, tuple)):
        return batch
    if len(batch) == len(model.inputs) > 1 and not any(map(keras.tree.is_nested, batch)):
        return batch
    return batch[0]


def all_inputs(split: str, data: Data, model: keras.Model) -> list[np.ndarray]:
    """Returns the inputs of data that may have labels, one array for each model input."""
    if isinstance(data, tuple):
        data = unlabelled(data, model)
    if is_arrays(data):  # whole, without a copy
        arrays = [np.asarray(a) for a in inputs_of(as_arrays(data), model)]
        if not all(map(len, arrays)):
            raise AmcError(f"{split} data is empty")
        return arrays
    parts = [
        inputs_of(unlabelled(batch, model), model)
        for batch, *_ in batches_of(split, data, labelled=False)
    ]
    if not parts:
        raise AmcError(f"{split} data is empty")
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def bounded(split: str, data: Any, steps: int | None, batch_size: int) -> Any:
    """Returns the first `steps` batches of data, in a form that Keras takes too."""
    if steps is None or data is None:
        return data
    if isinstance(data, tf.data.Dataset):
        return data.take(steps)
    first = batches_of(split, data, batch_size, steps)
    return present(first.parts) if isinstance(first, ArrayBatches) else first.dataset()


def for_keras(split: str, data: Any, batch_size: int, steps: int | None = None) -> Any:
    """Returns data as one object that `Model.evaluate` takes and reads by batches.

    What Keras reads by batches itself is returned as it is, and `steps` are to be given to Keras
    too.
    """
    batches = batches_of(split, data, batch_size, steps)  # raises where there is no end
    if isinstance(data, (tf.data.Dataset, keras.utils.PyDataset)):
        return data
    return batches.dataset() if steps is None else batches.dataset().repeat()


def _of_rank(array: Any, shape: tuple[int | None, ...]) -> Any:
    if is_array(array) and len(array.shape) == len(shape) - 1 and shape[-1] == 1:
        return array[..., None]
    if is_array(array) and len(array.shape) == len(shape) + 1 and array.shape[-1] == 1:
        return array[..., 0]
    return array
