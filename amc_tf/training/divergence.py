"""How far the outputs of a network are from the dense network's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import keras
import numpy as np
import scipy.special

from amc_tf.training.labels import LabelRule, label_rules

Outputs = Sequence[np.ndarray]
_LEAST = 1e-7  # a probability below counts as this one, as in Keras


class Divergence(NamedTuple):
    """A measure of how far outputs are from the dense network's.

    Attributes:
        name: its name.
        of: function of (outputs, the dense network's outputs), which returns a number of at least
            0, infinity for outputs that are not finite.
        noise: function of (the dense network's outputs, a generator), which draws an array of
            mean 0 for each output. A small change d of the outputs of one sample costs, to second
            order, half the mean of (noise . d)^2, summed over the outputs, where `of` sums them.
    """

    name: str
    of: Callable[[Outputs, Outputs], float]
    noise: Callable[[Outputs, np.random.Generator], list[np.ndarray]]


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
        return Divergence("relative squared error", _relative_squared_error, _of_squares)

    def summed(outputs: Outputs, dense: Outputs) -> float:
        parts = zip(shares, outputs, dense, strict=True)
        return _finite(sum(_kl(read.shares(d, d), read.shares(o, d)) for read, o, d in parts))

    def noise(dense: Outputs, rng: np.random.Generator) -> list[np.ndarray]:
        return [
            read.noise(d, rng) / math.sqrt(read.distributions(d))
            for read, d in zip(shares, dense, strict=True)
        ]

    return Divergence("KL divergence", summed, noise)


class _Reader(Protocol):
    """How the probabilities of an output are read."""

    def shares(self, outputs: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """Returns probabilities, float64, each distribution along the last axis.

        The dense network's outputs tell probabilities from logits.
        """
        ...

    def noise(self, dense: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws what `Divergence.noise` says, for the sum over a sample's distributions."""
        ...

    def distributions(self, dense: np.ndarray) -> int:
        """Returns the number of distributions of a sample."""
        ...


def _reader(rule: LabelRule) -> _Reader | None:
    """Returns how probabilities are read from an output, if its loss says that it holds them."""
    if rule.classes or rule.shares.startswith("categorical"):
        return _Classes()
    return _Sides() if rule.shares.startswith("binary") else None


class _Classes:
    """Distributions along the last axis; logits if the dense network's do not sum to 1."""

    def shares(self, outputs: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """See `_Reader`."""
        outputs = outputs.astype(np.float64)
        return outputs if self._plain(dense) else scipy.special.softmax(outputs, axis=-1)

    def noise(self, dense: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See `_Reader`: the second derivatives are 1/p, of logits p - pp'."""
        p = np.clip(self.shares(dense, dense), _LEAST, 1)
        drawn = rng.normal(size=p.shape)
        if self._plain(dense):
            return drawn / np.sqrt(p)
        drawn *= np.sqrt(p)
        return drawn - p * drawn.sum(axis=-1, keepdims=True)

    def distributions(self, dense: np.ndarray) -> int:
        """See `_Reader`."""
        return math.prod(dense.shape[1:-1])

    def _plain(self, dense: np.ndarray) -> bool:
        sums = dense.sum(axis=-1, dtype=np.float64)
        return bool(dense.min() >= 0 and np.allclose(sums, 1, atol=1e-3))


class _Sides:
    """Two probabilities of each unit; beyond 0 and 1 they are logits."""

    def shares(self, outputs: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """See `_Reader`."""
        p = outputs.astype(np.float64)
        p = p if self._plain(dense) else scipy.special.expit(np.clip(p, -50, 50))
        return np.stack([p, 1 - p], axis=-1)

    def noise(self, dense: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See `_Reader`: the second derivative is 1/p(1-p), of a logit p(1-p)."""
        deviation = np.sqrt(np.clip(self.shares(dense, dense), _LEAST, 1).prod(axis=-1))
        drawn = rng.normal(size=dense.shape)
        return drawn / deviation if self._plain(dense) else drawn * deviation

    def distributions(self, dense: np.ndarray) -> int:
        """See `_Reader`."""
        return math.prod(dense.shape[1:])

    def _plain(self, dense: np.ndarray) -> bool:
        return bool(dense.min() >= 0 and dense.max() <= 1)


def _kl(dense: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean KL divergence of distributions along the last axis, from the dense ones."""
    p, q = (np.clip(shares, _LEAST, 1) for shares in (dense, other))
    return float((p * np.log(p / q)).sum(axis=-1).mean())


def _relative_squared_error(outputs: Outputs, dense: Outputs) -> float:
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
