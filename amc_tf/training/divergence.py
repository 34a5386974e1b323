"""How far the outputs of a network are from the dense network's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np

from amc_tf.training.labels import LabelRule, label_rules

Outputs = Sequence[np.ndarray]
_LEAST = 1e-7  # a probability below counts as this one, as in Keras


class Divergence(NamedTuple):
    """A measure: its name, and a function of (outputs, the dense network's outputs).

    The function returns a number of at least 0, infinity for outputs that are not finite.
    """

    name: str
    of: Callable[[Outputs, Outputs], float]


def divergence(model: keras.Model) -> Divergence:
    """Returns the measure that fits the outputs of a compiled model.

    It is the KL divergence, summed over the outputs, if the loss of each takes probabilities or
    their logits. Else it is the squared error relative to the variance of the dense network's
    outputs, averaged over the outputs.

    Args:
        model: a model compiled as the dense one.
    """
    readers = [_reader(rule) for rule in label_rules(model, len(model.outputs))]
    shares = [reader for reader in readers if reader is not None]
    if len(shares) < len(readers):
        return Divergence("relative squared error", _relative_squared_error)

    def summed(outputs: Outputs, dense: Outputs) -> float:
        parts = zip(shares, outputs, dense, strict=True)
        return _finite(sum(_kl(read(d, d), read(o, d)) for read, o, d in parts))

    return Divergence("KL divergence", summed)


def _reader(rule: LabelRule) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """Returns how probabilities are read from an output, if its loss says that it holds them."""
    if rule.classes or rule.shares.startswith("categorical"):
        return _of_classes
    return _of_sides if rule.shares.startswith("binary") else None


def _of_classes(outputs: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Returns probabilities, float64; outputs are logits if the dense network's do not sum to 1."""
    outputs, dense = outputs.astype(np.float64), dense.astype(np.float64)
    if dense.min() >= 0 and np.allclose(dense.sum(axis=-1), 1, atol=1e-3):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _of_sides(outputs: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Returns the two probabilities (..., 2) of each unit; beyond 0 and 1 they are logits."""
    shares = outputs.astype(np.float64)
    if dense.min() < 0 or dense.max() > 1:
        shares = 1 / (1 + np.exp(-np.clip(shares, -50, 50)))
    return np.stack([shares, 1 - shares], axis=-1)


def _kl(dense: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean KL divergence of distributions along the last axis, from the dense ones."""
    p, q = (np.clip(shares, _LEAST, 1) for shares in (dense, other))
    return float((p * np.log(p / q)).sum(axis=-1).mean())


def _relative_squared_error(outputs: Outputs, dense: Outputs) -> float:
    parts = []
    for received, output in zip(outputs, dense, strict=True):
        expected = output.astype(np.float64)
        power = expected.var(axis=0).mean() + np.finfo(np.float64).tiny
        parts.append(np.square(received - expected).mean() / power)
    return _finite(float(np.mean(parts)))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
