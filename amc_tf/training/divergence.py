"""How far the outputs of a network are from the dense network's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import scipy.special

from amc_tf.training.labels import LabelRule, label_rules

KL = "KL divergence"
# What an output holds: shares of classes that exclude each other, shares of single units, numbers.
CLASSES, SIDES, VALUES = "classes", "sides", "values"
# Farther is no outputs: those that are not finite are infinitely far, which no file can hold.
FARTHEST = 100.0

Outputs = Sequence[np.ndarray]
LEAST = 1e-7  # a probability below counts as this one, as in Keras


class Divergence(NamedTuple):
    """A measure of how far outputs are from the dense network's.

    Attributes:
        name: its name, `KL` or another.
        kinds: what each output is taken to hold: `CLASSES`, `SIDES` or `VALUES`.
        of: function of (outputs, the dense network's outputs). It returns a number of at least 0,
            infinity for outputs that are not finite. A third argument may say which outputs are
            logits; else the dense network's say it.
        logits: function of the dense network's outputs, or of a part of them, that tells of each
            output whether it cannot hold probabilities. A part may not show it: who compares
            part by part must ask all parts first.
        noise: function of (the dense network's outputs, a generator), which draws an array of
            mean 0 for each output. A small change d of the outputs of one sample costs, to second
            order, half the mean of (noise . d)^2, summed over the outputs, where `of` sums them.
    """

    name: str
    kinds: Sequence[str]
    of: Callable[..., float]
    logits: Callable[[Outputs], list[bool]]
    noise: Callable[[Outputs, np.random.Generator], list[np.ndarray]]


def divergence(model: keras.Model) -> Divergence:
    """Returns the measure that fits the outputs of a compiled model.

    It is the KL divergence, summed over the outputs, if the loss of each takes probabilities or
    their logits. Else it is the squared error relative to the variance of the dense network's
    outputs, averaged over the outputs.

    Args:
        model: a model compiled as the dense one.
    """
    readers = [reader(rule) for rule in label_rules(model, len(model.outputs))]
    shares = [found for found in readers if found is not None]
    if len(shares) < len(readers):
        return Divergence(
            "relative squared error",
            len(readers) * [VALUES],
            _relative_squared_error,
            _none_is_logits,
            _of_squares,
        )

    def logits(dense: Outputs) -> list[bool]:
        return [r.is_logits(d) for r, d in zip(shares, dense, strict=True)]

    def summed(outputs: Outputs, dense: Outputs, told: Sequence[bool] | None = None) -> float:
        told = logits(dense) if told is None else told
        parts = zip(shares, outputs, dense, told, strict=True)
        return _finite(sum(_kl(r.read(d, of), r.read(o, of)) for r, o, d, of in parts))

    def noise(dense: Outputs, rng: np.random.Generator) -> list[np.ndarray]:
        parts = zip(shares, dense, logits(dense), strict=True)
        return [r.noise(d, of, rng) for r, d, of in parts]

    return Divergence(KL, [r.kind for r in shares], summed, logits, noise)


class Reader(NamedTuple):
    """How probabilities are read from an output.

    Attributes:
        kind: `CLASSES` or `SIDES`.
        is_logits: function of the dense network's output: whether it is logits.
        read: function of (an output, whether it is logits), which returns probabilities, float64,
            each distribution along the last axis.
        noise: function of (the dense network's output, whether it is logits, a generator), see
            `Divergence.noise`.
    """

    kind: str
    is_logits: Callable[[np.ndarray], bool]
    read: Callable[[np.ndarray, bool], np.ndarray]
    noise: Callable[[np.ndarray, bool, np.random.Generator], np.ndarray]


def reader(rule: LabelRule) -> Reader | None:
    """Returns how probabilities are read from an output, if its loss says that it holds them."""
    if rule.classes or rule.shares.startswith("categorical"):
        return _CLASSES
    return _SIDES if rule.shares.startswith("binary") else None


def _sum_to_no_1(dense: np.ndarray) -> bool:
    dense = dense.astype(np.float64)
    return not (dense.min() >= 0 and np.allclose(dense.sum(axis=-1), 1, atol=1e-3))


def _of_classes(outputs: np.ndarray, logits: bool) -> np.ndarray:
    outputs = outputs.astype(np.float64)
    return scipy.special.softmax(outputs, axis=-1) if logits else outputs


def _noise_of_classes(dense: np.ndarray, logits: bool, rng: np.random.Generator) -> np.ndarray:
    """Draws noise: the second derivatives by p are 1/p, by logits p - pp'."""
    p = np.clip(_of_classes(dense, logits), LEAST, 1)
    drawn = rng.normal(size=p.shape) / math.sqrt(math.prod(p.shape[1:-1]))
    if not logits:
        return drawn / np.sqrt(p)
    drawn *= np.sqrt(p)
    return drawn - p * drawn.sum(axis=-1, keepdims=True)


def _beyond_0_and_1(dense: np.ndarray) -> bool:
    return bool(dense.min() < 0 or dense.max() > 1)


def _of_sides(outputs: np.ndarray, logits: bool) -> np.ndarray:
    """Returns the two probabilities (..., 2) of each unit."""
    shares = outputs.astype(np.float64)
    if logits:
        shares = scipy.special.expit(np.clip(shares, -50, 50))
    return np.stack([shares, 1 - shares], axis=-1)


def _noise_of_sides(dense: np.ndarray, logits: bool, rng: np.random.Generator) -> np.ndarray:
    """Draws noise: the second derivative by p is 1/p(1-p), by a logit p(1-p)."""
    deviation = np.sqrt(np.clip(_of_sides(dense, logits), LEAST, 1).prod(axis=-1))
    drawn = rng.normal(size=dense.shape) / math.sqrt(math.prod(dense.shape[1:]))
    return drawn * deviation if logits else drawn / deviation


_CLASSES = Reader(CLASSES, _sum_to_no_1, _of_classes, _noise_of_classes)
_SIDES = Reader(SIDES, _beyond_0_and_1, _of_sides, _noise_of_sides)


def _kl(dense: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean KL divergence of distributions along the last axis, from the dense ones."""
    p, q = (np.clip(shares, LEAST, 1) for shares in (dense, other))
    return float((p * np.log(p / q)).sum(axis=-1).mean())


def _none_is_logits(dense: Outputs) -> list[bool]:
    return [False] * len(dense)


def _relative_squared_error(
    outputs: Outputs, dense: Outputs, told: Sequence[bool] | None = None
) -> float:
    del told
    parts = []
    for received, output in zip(outputs, dense, strict=True):
        expected = output.astype(np.float64)
        parts.append(np.square(received - expected).mean() / _variance(expected))
    return _finite(float(np.mean(parts)))


def _of_squares(dense: Outputs, rng: np.random.Generator) -> list[np.ndarray]:
    found = []
    for output in dense:
        numbers = math.prod(output.shape[1:]) * len(dense)
        variance = _variance(output.astype(np.float64))
        found.append(rng.normal(size=output.shape) * math.sqrt(2 / (numbers * variance)))
    return found


def _variance(output: np.ndarray) -> float:
    return float(output.var(axis=0).mean()) + np.finfo(np.float64).tiny


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
