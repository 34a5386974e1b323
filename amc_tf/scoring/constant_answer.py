"""The score of the best model that gives the same answer to every input.

A network that scores no better has learnt nothing that the metric sees, so that to prune it would
compress noise.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from amc_tf import story
from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.training.data import output_names
from amc_tf.training.forms import batches_of
from amc_tf.training.metric import Metric
from amc_tf.training.task import Task
from amc_tf.training.uncertainty import Uncertainty

_LOG = logging.getLogger(__name__)
_MOST_NUMBERS = 10**7  # of the labels that are held at a time
_PATIENCE = 60.0  # seconds of evaluating after which no other answer is tried
_LEAST = 1e-7  # probability whose logarithm stands for that of an absent class


def best_constant(task: Task, model: keras.Model, metric: Metric) -> float | None:
    """Returns the best score of a constant answer on the validation data.

    The answers tried are the mean, the median and the most frequent value of the labels, and the
    logarithm of the mean, for outputs that are logits.

    Args:
        task: the data, and the code that compiles and evaluates.
        model: the dense model, for the form of the answers.
        metric: what the scores are.

    Returns:
        The score; None if the labels do not have the form of the outputs, an output has no fixed
        size, or the task cannot score the answers.
    """
    labels = _labels(task, model)
    if labels is None:
        return None
    constant, layers = _constant(model)
    scores, start = [], time.monotonic()
    for answer in _ANSWERS.values():
        if time.monotonic() - start > _PATIENCE:
            break
        for layer, array in zip(layers, labels, strict=True):
            layer.value.assign(answer(array))
        try:
            if not scores:
                task.compiled(constant, model)
            scores.append(task.score(constant, task.validation))
        except Exception as error:  # the user's code, given a model that it was not written for
            story.remark(_LOG, "a constant answer cannot be scored: %s", error)
    return max(scores, key=metric.gain, default=None)


def no_better(
    metric: Metric, uncertainty: Uncertainty, dense: float, constant: float | None
) -> str:
    """Says that the dense network is no better than a constant answer, if so; else an empty text.

    Args:
        metric: what the scores are.
        uncertainty: how uncertain they are; two standard errors must lie between the two.
        dense: score of the dense network on the validation data.
        constant: result of `best_constant`.
    """
    if constant is None:
        return ""
    error = uncertainty.standard_error(metric, constant, "validation") or 0.0
    if metric.gain(dense) - metric.gain(constant) > 2 * error:
        return ""
    return (
        f"the dense network has {metric.written(dense)} on the validation data, no better than the "
        f"same answer to every input ({metric.number(constant)}), so that there is nothing to "
        "preserve: train it first (train_dense), or check the labels"
    )


def _labels(task: Task, model: keras.Model) -> list[np.ndarray] | None:
    """Returns labels in the form of each output, (samples, ...); class indices become one-hot."""
    shapes = [tuple(t.shape[1:]) for t in model.outputs]
    if any(size is None for shape in shapes for size in shape):
        return None
    parts: list[list[np.ndarray]] = []
    most = max(1, _MOST_NUMBERS // max(1, sum(int(np.prod(s)) for s in shapes)))
    count = 0
    for _, y, _ in batches_of("validation", task.validation, task.batch_size):
        arrays = _in_order(y, model)
        if arrays is None:
            return None
        formed = [_formed(array, shape) for array, shape in zip(arrays, shapes, strict=True)]
        if any(array is None for array in formed):
            return None
        parts.append([array[: most - count] for array in formed if array is not None])
        count += len(parts[-1][0])
        if count >= most:
            break
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _in_order(y: Any, model: keras.Model) -> list[np.ndarray] | None:
    """Returns the labels of a batch in the order of the outputs, if that is known."""
    if isinstance(y, Mapping):
        structure = nesting(model, "outputs")
        names = structure if isinstance(structure, Mapping) else output_names(model)
        if set(names) != set(y):
            return None
        # Keras flattens dictionaries by their sorted keys.
        names = sorted(names) if isinstance(structure, Mapping) else names
        return [np.asarray(y[name]) for name in names]
    if len(model.outputs) == 1 and not isinstance(y, (list, tuple)):
        return [np.asarray(y)]
    arrays = [np.asarray(a) for a in keras.tree.flatten(y)]
    return arrays if len(arrays) == len(model.outputs) else None


def _formed(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the labels of an output in its shape; None if they are of another kind."""
    if labels.dtype.kind not in "fiub":
        return None
    if labels.shape[1:] == shape:
        return labels.astype(np.float32)
    if labels.shape[1:] + (1,) == shape:
        return labels[..., None].astype(np.float32)
    classes = labels[..., 0] if labels.shape[1:] == (*shape[:-1], 1) else labels
    known = np.isfinite(classes) & (classes == np.floor(classes))
    if classes.shape[1:] != shape[:-1] or not known.all():
        return None
    inside = (classes >= 0) & (classes < shape[-1])  # others, such as -1, mark what is ignored
    one_hot = np.eye(shape[-1], dtype=np.float32)[np.where(inside, classes, 0).astype(int)]
    return one_hot * inside[..., None]


def _most_frequent(labels: np.ndarray) -> np.ndarray:
    """Returns the commonest class as one-hot, or the value that rounding the mean gives."""
    mean = labels.mean(axis=0)
    if labels.shape[-1] == 1:
        return np.round(mean)
    return np.eye(labels.shape[-1], dtype=np.float32)[mean.argmax(axis=-1)]


def _logarithm(labels: np.ndarray) -> np.ndarray:
    """Returns the logits of the mean."""
    mean = np.clip(labels.mean(axis=0), _LEAST, 1 - _LEAST)
    return np.log(mean) - (np.log1p(-mean) if labels.shape[-1] == 1 else 0)


_ANSWERS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda labels: labels.mean(axis=0),
    "median": lambda labels: np.median(labels, axis=0),
    "most frequent": _most_frequent,
    "logarithm of the mean": _logarithm,
}


class _Constant(keras.layers.Layer):
    """A layer that returns the same values, a variable, for each sample."""

    def __init__(self, shape: tuple[int, ...], name: str):
        super().__init__(name=name, dtype="float32")
        self.value = self.add_weight(shape=shape, initializer="zeros", trainable=False)

    def call(self, inputs: Any) -> Any:
        """Returns the values, (samples, ...)."""
        count = keras.ops.shape(inputs)[0]
        return keras.ops.broadcast_to(self.value, (count, *self.value.shape))


def _constant(model: keras.Model) -> tuple[keras.Model, list[_Constant]]:
    """Makes a model with the inputs, and the names and structure of the outputs, of another.

    Returns:
        The model, and the layer of each output.
    """
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    named = zip(model.outputs, output_names(model), strict=True)
    layers = [_Constant(tuple(output.shape[1:]), name) for output, name in named]
    outputs = [layer(inputs[0]) for layer in layers]
    made = keras.Model(
        pack(nesting(model, "inputs"), inputs), pack(nesting(model, "outputs"), outputs)
    )
    return made, layers
