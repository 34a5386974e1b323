"""What can be measured of a model on labels alone, where no compiled metric says it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from amc_tf.errors import AmcError

# Takes outputs and labels; returns a number of which more is better, at most 1.
Measured = Callable[[np.ndarray, np.ndarray], float]


class Measure(NamedTuple):
    """A measure and the name under which it is reported."""

    name: str
    of: Measured


def measure_of(name: str, outputs: np.ndarray, labels: np.ndarray) -> Measure:
    """Returns what the labels of an output measure.

    Args:
        name: name of the output, for messages.
        outputs: the Keras model's output (samples, ..., units).
        labels: class indices (samples, ...), also with a last axis of 1; one-hot classes or the
            zeros and ones of several labels, shaped as the output; or any numbers of that shape.

    Returns:
        The accuracy where labels are classes, or zeros and ones; `r2_score`, the share of the
        variance that is explained, where they are other numbers.

    Raises:
        AmcError: the labels fit the output in none of these ways.
    """
    units = outputs.shape[-1] if outputs.ndim > 1 else 1
    whole = labels.dtype.kind in "biu" or bool((labels == np.round(labels)).all())
    binary = whole and bool(((labels == 0) | (labels == 1)).all())
    alike = labels.size == outputs.size and len(labels) == len(outputs)
    indices = whole and labels.size * units == outputs.size and len(labels) == len(outputs)
    if units > 1 and indices:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= units:
            raise AmcError(
                f"labels of the output {name!r} range from {low} to {high}, but its {units} "
                f"numbers stand for labels 0 to {units - 1}"
            )
        return Measure("accuracy", _classes)
    if not alike:
        raise AmcError(
            f"labels of the output {name!r} have the shape {labels.shape}, but it has the shape "
            f"{outputs.shape}; expected class indices {outputs.shape[:-1]}, or labels of its shape"
        )
    if binary and units > 1 and bool((labels.reshape(outputs.shape).sum(-1) == 1).all()):
        return Measure("accuracy", _one_hot)
    if binary:
        # Outputs beyond 0 and 1 are no probabilities but logits.
        threshold = 0.5 if outputs.min() >= 0 and outputs.max() <= 1 else 0.0
        return Measure("binary_accuracy", lambda o, y: _sides(o, y, threshold))
    return Measure("r2_score", explained)


def agreement(outputs: np.ndarray) -> tuple[Measure, np.ndarray]:
    """Returns how far other outputs agree with these, and the labels made of them.

    That is the share of positions with the same class, or, for one unit, `r2_score`.
    """
    if outputs.ndim > 1 and outputs.shape[-1] > 1:
        return Measure("agreement", _classes), outputs.argmax(-1)
    return Measure("r2_score", explained), outputs


def explained(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of the variance of the labels that outputs explain, at most 1."""
    labels = labels.reshape(outputs.shape).astype(np.float64)
    variance = np.var(labels)
    error = np.mean((outputs - labels) ** 2)
    return 1.0 - float(error / variance) if variance > 0 else float(error == 0)


def _classes(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(-1) == labels.reshape(outputs.shape[:-1])))


def _one_hot(outputs: np.ndarray, labels: np.ndarray) -> float:
    return _classes(outputs, labels.reshape(outputs.shape).argmax(-1))


def _sides(outputs: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    return float(np.mean((outputs > threshold) == (labels.reshape(outputs.shape) > 0.5)))
