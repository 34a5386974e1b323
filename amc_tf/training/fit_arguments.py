"""The arguments of a call of `Model.fit`, and the data in them."""

from __future__ import annotations

import collections.abc
import inspect
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.training.data import Data

# Arguments that change the training; the others are data, callbacks or output.
_RECORDED = (
    "batch_size",
    "epochs",
    "validation_split",
    "shuffle",
    "class_weight",
    "initial_epoch",
    "steps_per_epoch",
    "validation_steps",
)


class FitArguments:
    """The arguments that a script passes to `fit`, used for several models in turn.

    Args:
        args: positional arguments of `Model.fit`.
        kwargs: keyword arguments of `Model.fit`.

    Attributes:
        given: all arguments, by name.
        train: training data, in a form that `amc_tf.Task` accepts.
        validation: held-out data, in a form that `amc_tf.Task` accepts.

    Raises:
        TypeError: `fit` has no such argument.
        AmcError: no data is held out, or data cannot be read more than once.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]):
        bound = inspect.signature(keras.Model.fit).bind(None, *args, **kwargs)
        self.given: dict[str, Any] = dict(list(bound.arguments.items())[1:])
        if isinstance(self.given.get("callbacks"), keras.callbacks.CallbackList):
            raise AmcError(
                "expected callbacks as a list, received a CallbackList, which belongs to one model"
            )
        self.train, self.validation = _data(self.given)

    @property
    def callbacks(self) -> list[Any]:
        """The callbacks as a list."""
        return keras.tree.flatten(self.given.get("callbacks") or [])

    @property
    def record(self) -> dict[str, Any]:
        """The arguments that distinguish one training from another, as JSON values."""
        values = {name: self.given[name] for name in _RECORDED if name in self.given}
        return {name: _json(value) for name, value in values.items()}

    def fit(self, model: keras.Model) -> keras.callbacks.History:
        """Calls `model.fit`.

        A callback may have been used with another model before. Most callbacks of Keras
        reset themselves; a `ModelCheckpoint` would still compare with the best value of
        that other model, so it is reset here.
        """
        for callback in self.callbacks:
            used = getattr(callback, "model", None) is not None
            if used and isinstance(callback, keras.callbacks.ModelCheckpoint):
                callback.best = None
        return model.fit(**self.given)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): float(number) for key, number in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _data(given: Mapping[str, Any]) -> tuple[Data, Data]:
    x, validation = given.get("x"), given.get("validation_data")
    split = given.get("validation_split") or 0.0
    for name, data in (("x", x), ("validation_data", validation)):
        if isinstance(data, collections.abc.Iterator):
            raise AmcError(
                f"{name} is a {type(data).__name__}, which can be read once, but is needed again "
                "and again; make it a tf.data.Dataset (Dataset.from_generator) or a "
                "keras.utils.PyDataset"
            )
    if validation is None and not split:
        raise AmcError(
            "fit got neither validation_data nor validation_split, but the search is rewarded "
            "with the accuracy on data held out of training; add one of them"
        )
    dataset = _dataset("x", x, given, "steps_per_epoch")
    if dataset is None:
        train = _arrays("x", (x, given.get("y"), given.get("sample_weight")))
    elif validation is None:
        raise AmcError(
            f"validation_split works on arrays, received x as {type(x).__name__}; give "
            "validation_data"
        )
    else:
        train = dataset
    if validation is None:
        return _split(train, split)
    held_out = _dataset("validation_data", validation, given, "validation_steps")
    if held_out is None:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise AmcError(
                "expected validation_data as (x, y), (x, y, sample_weight) or a batched dataset, "
                f"received {type(validation).__name__}"
            )
        held_out = _arrays("validation_data", validation)
    return train, held_out


def _arrays(name: str, parts: Any) -> Data:
    x, y, *weight = parts
    if x is None or y is None:
        raise AmcError(
            f"{name}: expected inputs and labels, received no {'labels' if y is None else 'inputs'}"
        )
    arrays = keras.tree.map_structure(np.asarray, (x, y, *(w for w in weight if w is not None)))
    # A list holds the labels of several outputs; as a list it would be stacked into one tensor.
    return (arrays[0], *(tuple(a) if isinstance(a, list) else a for a in arrays[1:]))


def _split(arrays: Data, share: float) -> tuple[Data, Data]:
    """Splits arrays as Keras does: the last samples, before any shuffling, are held out."""
    count = len(keras.tree.flatten(arrays)[0])
    first = math.floor(count * (1 - share))
    if not 0 < first < count:
        raise AmcError(
            f"validation_split={share} leaves nothing to train on, or nothing held out, of "
            f"{count} samples; expected a fraction such as 0.2"
        )
    return (
        keras.tree.map_structure(lambda a: a[:first], arrays),
        keras.tree.map_structure(lambda a: a[first:], arrays),
    )


def _dataset(
    name: str, data: Any, given: Mapping[str, Any], steps_name: str
) -> tf.data.Dataset | None:
    """Returns a dataset for one epoch; None for arrays."""
    steps = given.get(steps_name)
    if isinstance(data, keras.utils.PyDataset):
        data = _of_pydataset(data)
    if not isinstance(data, tf.data.Dataset):
        return None
    if steps is not None:
        return data.take(int(steps))
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise AmcError(f"{name} repeats without end; give {steps_name}")
    return data


def _of_pydataset(source: keras.utils.PyDataset) -> tf.data.Dataset:
    def read(index: int) -> Any:
        parts = (tuple(part) if isinstance(part, list) else part for part in source[index])
        return tuple(part for part in parts if part is not None)

    def batches() -> Any:
        return (read(index) for index in range(source.num_batches or 0))

    spec = keras.tree.map_structure(
        lambda a: tf.TensorSpec((None, *np.shape(a)[1:]), np.asarray(a).dtype), read(0)
    )
    return tf.data.Dataset.from_generator(batches, output_signature=spec)
