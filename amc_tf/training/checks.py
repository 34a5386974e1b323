"""What is refused in the user's data before any work, found in one pass over it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.training.data import inputs_of, labels_of, output_names
from amc_tf.training.forms import Batches
from amc_tf.training.labels import LabelRule, label_rules

_LOG = logging.getLogger(__name__)

# Least-squares refits sum products of activations in float32, which ends at 3.4e38.
_LARGEST = 1e18
# A sample so much larger than the others, and large in itself, would rule every such sum.
_OUTLIER = 1e10
_TIMES_MEDIAN = 1e6
# Factor between two splits at which one of them seems to be preprocessed in another way.
_OTHER_SCALE = 20.0
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
        compiled: a model like it that is compiled, for what its losses read as labels; None if it
            is not known how the model is compiled.

    Attributes:
        medians: for each input, the largest magnitude that half of the samples stay within; None
            if it was not looked at, and before the end.
    """

    def __init__(self, split: str, model: keras.Model, compiled: keras.Model | None = None):
        self._split = split
        self._model = model
        self._rules = label_rules(compiled, len(model.outputs))
        self._seen = 0
        self.medians: list[float | None] = [None] * len(model.inputs)
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
            whole = values.dtype.kind in "iu" and keras.backend.is_float_dtype(tensor.dtype)
            if values.dtype.kind == "f" or whole or values.dtype in (np.int64, np.uint64):
                known.append(self._finite(f"input {tensor.name!r}", values))
        count = len(arrays[0])
        weighted = sample_weight is not None
        for output, labels in enumerate(labels_of(y, self._model)):
            if labels is not None:
                self._check_labels(output, np.asarray(labels), count, weighted)
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
        for i, (tensor, batches) in enumerate(
            zip(self._model.inputs, self._magnitudes, strict=True)
        ):
            if not batches or not keras.backend.is_float_dtype(tensor.dtype):
                continue
            of_samples = np.concatenate(batches)
            sample, median = int(of_samples.argmax()), float(np.median(of_samples))
            self.medians[i] = median
            largest = float(of_samples[sample])
            if largest > _LARGEST or (largest > _OUTLIER and largest > _TIMES_MEDIAN * median):
                raise AmcError(
                    f"{self._split} data: sample {sample} holds {largest:.2g} in the input "
                    f"{tensor.name!r}, where half of the samples hold at most {median:.2g}, and "
                    "products of such values leave the range of float32; mend or leave out the "
                    "sample, or scale the inputs"
                )

    def _check_labels(self, output: int, labels: np.ndarray, count: int, weighted: bool) -> None:
        if labels.ndim and len(labels) != count:
            raise AmcError(f"{self._split} data has {count} inputs but {len(labels)} labels")
        rule, tensor = self._rules[output], self._model.outputs[output]
        name = output_names(self._model)[output]
        if rule.own:
            self._check_kind(f"its labels of {name!r}", labels)
            if labels.dtype.kind == "f":
                self._finite(f"labels of {name!r}", labels)
        # A weight of zero may stand for "no label", whatever the label is.
        if rule.shares and not weighted and labels.size:
            self._check_range(labels, 1, f"the loss {rule.shares} of {name!r} takes probabilities")
        units = tensor.shape[-1] if tensor.shape[1:] else None
        if units is None or units <= 1 or not _are_classes(labels, tensor, rule):
            return
        labels = labels if rule.ignored is None else labels[labels != rule.ignored]
        if labels.size:
            of = f"the model's {units} outputs stand for labels"
            self._check_range(labels, units - 1, of)

    def _check_range(self, labels: np.ndarray, most: int, what: str) -> None:
        low, high = labels.min(), labels.max()
        if low < 0 or high > most:
            raise AmcError(
                f"{self._split} labels range from {low:g} to {high:g}, but {what} 0 to {most}"
            )

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


def _are_classes(labels: np.ndarray, tensor: Any, rule: LabelRule) -> bool:
    if rule.classes:
        axes = len(tensor.shape) - 1
        positions = labels.ndim == axes or (labels.ndim == axes + 1 and labels.shape[-1] == 1)
        return labels.dtype.kind in "iuf" and positions
    one_each = labels.ndim == 1 or labels.shape[1:] == (1,)
    return labels.dtype.kind in "iu" and len(tensor.shape) == 2 and one_each


def tell_scales(checks: Mapping[str, Check]) -> None:
    """Warns of splits whose inputs are of another order of magnitude than the validation data.

    One of them is not preprocessed as the other then; a refit or a quantisation by it would ruin
    the network.

    Args:
        checks: the finished check of each split, by its name; `validation` among them.
    """
    for split, check in checks.items():
        pairs = zip(check.medians, checks["validation"].medians, strict=True)
        for median, usual in pairs:
            if not median or not usual or 1 / _OTHER_SCALE < median / usual < _OTHER_SCALE:
                continue
            _LOG.warning(
                "half of the samples of the %s data hold values up to %.3g, those of the "
                "validation data up to %.3g: if one of the two is preprocessed in another way "
                "(scaled by 1/255, for instance), results will be wrong",
                split,
                median,
                usual,
            )


def check_batches(batches: Batches, check: Check) -> None:
    """Passes over data once and checks every batch; see `Check`."""
    for x, y, weight in batches:
        if y is None:
            raise AmcError(f"{batches.split} data: expected inputs and labels, received no labels")
        check.see(x, y, weight)
    check.finish()
