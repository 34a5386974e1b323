"""The arguments of a call of `Model.fit`, and the data in them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.training.arrays import as_arrays, common_length, is_arrays
from amc_tf.training.data import Data, bounded
from amc_tf.training.forms import batches_of

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
    share = given.get("validation_split") or 0.0
    if validation is None and not share:
        raise AmcError(
            "fit got neither validation_data nor validation_split, but the search is rewarded "
            "with the accuracy on data held out of training; add one of them"
        )
    if x is None or is_arrays(x):
        train = _arrays("x", (x, given.get("y"), given.get("sample_weight")))
        if validation is None:
            return _split(train, share)
    elif validation is None:
        raise AmcError(
            f"validation_split works on arrays, received x as {type(x).__name__}; give "
            "validation_data"
        )
    else:
        train = _batches("train", x, given.get("steps_per_epoch"))
    steps = given.get("validation_steps")
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        held_out = _arrays("validation_data", validation)
        size = given.get("validation_batch_size") or given.get("batch_size") or 32  # as Keras
        return train, bounded("validation", held_out, steps, size)
    if isinstance(validation, (tuple, list)) or is_arrays(validation):
        raise AmcError(
            "expected validation_data as (x, y), (x, y, sample_weight) or a batched dataset, "
            f"received {type(validation).__name__}"
        )
    return train, _batches("validation", validation, steps)


def _arrays(name: str, parts: Any) -> Data:
    x, y, *weight = parts
    if x is None or y is None:
        raise AmcError(
            f"{name}: expected inputs and labels, received no {'labels' if y is None else 'inputs'}"
        )
    return tuple(as_arrays(part) for part in (x, y, *weight) if part is not None)


def _split(arrays: Data, share: float) -> tuple[Data, Data]:
    """Splits arrays as Keras does: the last samples, before any shuffling, are held out."""
    count = common_length("train", (*arrays, None)[:3])
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


def _batches(split: str, data: Any, steps: int | None) -> Data:
    batches_of(split, data, steps=steps)  # raises where it can be read once, or has no end
    return bounded(split, data, steps, 1)
