"""What is refused in the user's data before any work, found in one pass over it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.training.data import inputs_of, labels_of
from amc_tf.training.forms import Batches

# Least-squares refits sum products of activations in float32, which ends at 3.4e38.
_LARGEST = 1e18
# A sample so much larger than the others, and large in itself, would rule every such sum.
_OUTLIER = 1e10
_TIMES_MEDIAN = 1e6
# Kinds of NumPy's types that models do not read: objects, text, times, complex numbers; and those
# of them that inputs of some types read.
_NO_NUMBERS = "OUSMmc"
_READ = {"string": "OUS", "complex64": "c", "complex128": "c"}


def check_names(model: keras.Model) -> None:
    """Raises an AmcError if the model or a layer has a name that TensorFlow's functions refuse.

    Such a model can be called on arrays, and be trained by other backends of Keras, but neither
    evaluated, trained nor converted here; and where that is tried, Keras gives the name to all
    variables made later.
    """

    def enter(layer: keras.Layer) -> None:
        try:
            with tf.name_scope(layer.name):
                for inner in getattr(layer, "layers", ()):
                    enter(inner)
        except ValueError:
            kind = "model" if layer is model else "layer"
            raise AmcError(
                f"the {kind} is named {layer.name!r}; TensorFlow takes letters, digits and any of "
                "_.-/ in a name, and as the first of a model's name no _-/: rename it"
            ) from None

    with tf.Graph().as_default():
        enter(model)


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


class Check:
    """The check of one split, batch by batch; `AmcError`s name the split and the sample.

    Args:
        split: what the data is called in messages.
        model: the model that reads it.
        labels_finite: whether labels must be finite numbers; some losses read NaN as "no label",
            and code of the user's own may read anything.
        classes: whether all labels stand for classes, also floats and those of single positions;
            otherwise only whole numbers, one for each sample.
        ignored: labels that all losses ignore, so that they stand for no class.
    """

    def __init__(
        self,
        split: str,
        model: keras.Model,
        labels_finite: bool = False,
        classes: bool = False,
        ignored: Collection[int] = (),
    ):
        self._split = split
        self._model = model
        self._labels_finite = labels_finite
        self._classes = classes
        self._ignored = list(ignored)
        self._seen = 0
        # For each input, the largest magnitude in each sample: batches of float64 arrays.
        self._magnitudes: list[list[np.ndarray]] = [[] for _ in model.inputs]

    def see(self, x: Any, y: Any = None, sample_weight: Any = None) -> None:
        """Checks a batch.

        Raises:
            AmcError: the shape is wrong, values are not finite, labels are out of range.
        """
        arrays = inputs_of(x, self._model)
        for tensor, array, known in zip(self._model.inputs, arrays, self._magnitudes, strict=True):
            check_shape(self._split, array, tensor)
            values = np.asarray(array)
            self._check_kind(f"its input {tensor.name!r}", values, _READ.get(tensor.dtype, ""))
            if values.dtype.kind == "f" or values.dtype in (np.int64, np.uint64):
                known.append(self._finite(f"input {tensor.name!r}", values))
        count = len(arrays[0])
        for name, labels, tensor in labels_of(y, self._model):
            self._check_labels(name, np.asarray(labels), tensor, count)
        for weight in keras.tree.flatten(sample_weight):
            if weight is not None:
                self._check_kind("its sample weights", np.asarray(weight))
                self._finite("sample weights", np.asarray(weight))
        self._seen += count

    def finish(self) -> None:
        """Checks what only a whole pass can tell.

        Raises:
            AmcError: there was no sample, or the values of one are so large that products of them
                overflow.
        """
        if self._seen == 0:
            raise AmcError(f"{self._split} data is empty")
        for tensor, batches in zip(self._model.inputs, self._magnitudes, strict=True):
            if not batches or not keras.backend.is_float_dtype(tensor.dtype):
                continue
            of_samples = np.concatenate(batches)
            sample, median = int(of_samples.argmax()), float(np.median(of_samples))
            largest = float(of_samples[sample])
            if largest > _LARGEST or (largest > _OUTLIER and largest > _TIMES_MEDIAN * median):
                raise AmcError(
                    f"{self._split} data: sample {sample} holds {largest:.2g} in the input "
                    f"{tensor.name!r}, where half of the samples hold at most {median:.2g}, and "
                    "products of such values leave the range of float32; mend or leave out the "
                    "sample, or scale the inputs"
                )

    def _check_labels(self, name: str, labels: np.ndarray, tensor: Any, count: int) -> None:
        if labels.ndim and len(labels) != count:
            raise AmcError(f"{self._split} data has {count} inputs but {len(labels)} labels")
        if self._labels_finite:
            self._check_kind(f"its labels of {name!r}", labels)
            if labels.dtype.kind == "f":
                self._finite(f"labels of {name!r}", labels)
        units = tensor.shape[-1] if tensor.shape[1:] else None
        if units is None or units <= 1 or not self._are_classes(labels, tensor):
            return
        labels = labels[~np.isin(labels, self._ignored)] if self._ignored else labels
        if not labels.size:
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= units:
            raise AmcError(
                f"{self._split} labels range from {low} to {high}, but the model's {units} outputs "
                f"stand for labels 0 to {units - 1}"
            )

    def _are_classes(self, labels: np.ndarray, tensor: Any) -> bool:
        if self._classes:
            axes = len(tensor.shape) - 1
            positions = labels.ndim == axes or (labels.ndim == axes + 1 and labels.shape[-1] == 1)
            return labels.dtype.kind in "iuf" and positions
        one_each = labels.ndim == 1 or labels.shape[1:] == (1,)
        return labels.dtype.kind in "iu" and len(tensor.shape) == 2 and one_each

    def _check_kind(self, what: str, values: np.ndarray, read: str = "") -> None:
        """Raises an AmcError for what is no number (or would lose its imaginary part)."""
        if values.dtype.kind in _NO_NUMBERS and values.dtype.kind not in read:
            raise AmcError(
                f"{self._split} data has the type {values.dtype} in {what}; expected numbers"
            )

    def _finite(self, what: str, values: np.ndarray) -> np.ndarray:
        """Returns the largest magnitude in each sample; no array as large as the batch is made."""
        values = values.reshape(len(values), -1)
        if values.size == 0:
            return np.zeros(len(values))
        largest = np.maximum(
            values.max(axis=1).astype(np.float64), -values.min(axis=1).astype(np.float64)
        )
        wrong = np.flatnonzero(~np.isfinite(largest))
        if len(wrong):
            raise AmcError(
                f"{self._split} data: sample {self._seen + int(wrong[0])} holds values that are "
                f"not finite in its {what}; mend it or leave it out"
            )
        return largest


def check_batches(batches: Batches, check: Check) -> None:
    """Passes over data once and checks every batch; see `Check`."""
    for x, y, weight in batches:
        if y is None:
            raise AmcError(f"{batches.split} data: expected inputs and labels, received no labels")
        check.see(x, y, weight)
    check.finish()
