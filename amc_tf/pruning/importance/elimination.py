"""Ranking channels by backward elimination: what the consumers cannot restore goes last.

The magnitude of the weights that read a channel says how strong the channel is,
not whether the other channels could replace it. With P the inverse covariance
of a consumer's inputs and W its weights, removing the inputs b of one channel
and refitting the rest by least squares raises the squared error by

    W_b' (P_bb)^-1 W_b,

and leaves P - P_:b (P_bb)^-1 P_b: and W - P_:b (P_bb)^-1 W_b for the rest
(Hassibi and Stork, "Optimal Brain Surgeon", NIPS 1992, here for blocks). So one
covariance, gathered once, gives an order of all channels: the cheapest one is
removed first.

Updating everything after each channel would take minutes for wide layers. The costs of some
channels depend on nothing but the rows and columns of P and the rows of W that are theirs. So the
next few channels are found among the cheapest ones alone, by the same rule, and then removed
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from amc_tf.graph.channel_graph import Group
from amc_tf.pruning.importance.readers import Reader, readers_of
from amc_tf.pruning.refit.dense import Reconstruction
from amc_tf.pruning.refit.statistics import Moments, one_blas_thread, ridge_term

# Of the channels that are left, one in this many is removed between two updates of everything.
_ROUNDS = 32
_CANDIDATES = 4  # number of channels, for each of them, among which they are found


def elimination_order(
    refit: Reconstruction,
    otherwise: Mapping[str, np.ndarray],
    effects: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Finds the order in which channels are removed, as an importance.

    The error of an output counts by what it does to the network's outputs. Where several layers
    read a channel, the error of each counts relative to the power of its output, and by its share
    of the network's outputs (see `amc_tf.pruning.importance.readers`).

    Args:
        refit: statistics of the dense network, from `amc_tf.pruning.refit.gather`.
        otherwise: importance of the groups that no refitted layer reads.
        effects: see `readers_of`.

    Returns:
        Group name to float64 array (channels,), 0 for the channel removed
        first; an argument of `amc_tf.pruning.importance.strongest`.
    """
    readers = readers_of(refit, effects)
    result = {}
    with one_blas_thread():
        for name, group in refit.graph.groups.items():
            losses = [
                _loss(refit, readers[reader], group)
                for reader in group.consumers
                if reader in readers and group.channels > 1
            ]
            order = _eliminate(losses) if losses else np.argsort(otherwise[name])
            result[name] = np.argsort(order).astype(np.float64)
    return result


def _eliminate(losses: Sequence[_Loss]) -> list[int]:
    """Returns all channels in the order in which they are removed."""
    costs = _summed(losses)
    left = np.arange(len(costs))
    order: list[int] = []
    while len(left):
        few = max(1, len(left) // _ROUNDS)
        near = np.argsort(costs, kind="stable")[: _CANDIDATES * few]
        gone = near[_cheapest([loss.of(near) for loss in losses], few)]
        order += left[gone].tolist()
        stays = np.delete(np.arange(len(left)), gone)
        losses = [loss.without(gone, stays) for loss in losses]
        left, costs = left[stays], _summed(losses)
    return order


def _cheapest(losses: Sequence[_Loss], few: int) -> np.ndarray:
    """Returns the few channels that are removed first, one after another."""
    order: list[int] = []
    left = np.arange(len(_summed(losses)))
    while len(order) < few:
        gone = np.argmin(_summed(losses), keepdims=True)
        order += left[gone].tolist()
        stays = np.delete(np.arange(len(left)), gone)
        losses = [loss.without(gone, stays) for loss in losses]
        left = left[stays]
    return np.array(order)


def _summed(losses: Sequence[_Loss]) -> np.ndarray:
    return np.sum([loss.costs() for loss in losses], axis=0)


class _Loss(Protocol):
    """The squared error of one consumer's output, relative to the power of that output."""

    def costs(self) -> np.ndarray:
        """Returns for each channel the loss if it were the next to be removed."""
        ...

    def of(self, channels: np.ndarray) -> _Loss:
        """Returns the loss as far as it concerns some channels; the others are kept."""
        ...

    def without(self, gone: np.ndarray, stays: np.ndarray) -> _Loss:
        """Returns the loss after some channels are removed; `stays` are the others."""
        ...


def _loss(refit: Reconstruction, reader: Reader, group: Group) -> _Loss:
    gone = refit.graph.dropped_with
    features = np.stack([np.flatnonzero(gone(reader.classes, c)) for c in group.classes])
    statistics = reader.consumer.statistics
    if not isinstance(statistics, Moments):
        return _Apart.of_reader(reader, statistics.variances, features)
    covariance = statistics.covariance(centred=reader.consumer.intercept is not None)
    return _Refitted.of_reader(reader, covariance, features, refit.ridge)


class _Refitted:
    """The loss after a least-squares refit of the channels that are left.

    Args:
        inverse: inverse covariance of the inputs, those of each channel side by side.
        weights: the weights of these inputs (features, outputs), scaled to the unit of the loss.
        size: number of inputs of each channel.
    """

    def __init__(self, inverse: np.ndarray, weights: np.ndarray, size: int):
        self._inverse, self._weights, self._size = inverse, weights, size

    @classmethod
    def of_reader(
        cls, reader: Reader, covariance: np.ndarray, features: np.ndarray, ridge: float
    ) -> _Refitted:
        weights = reader.weights
        covariance = covariance + ridge_term(np.diag(covariance), ridge) * np.eye(len(covariance))
        power = np.sum(weights * (covariance @ weights)) + np.finfo(float).tiny
        own = features.ravel()
        # Inputs of other groups are not removed, so the rest of the inverse is not needed.
        inverse = np.linalg.inv(covariance)[np.ix_(own, own)]
        return cls(inverse, weights[own] * np.sqrt(reader.share / power), features.shape[1])

    def costs(self) -> np.ndarray:
        """See `_Loss.costs`."""
        size = self._size
        count = len(self._weights) // size
        weights = self._weights.reshape(count, size, self._weights.shape[1])
        if size == 1:
            return np.square(weights).sum(axis=(1, 2)) / np.diag(self._inverse)
        at = np.arange(count)
        own = self._inverse.reshape(count, size, count, size)[at, :, at, :]
        return np.sum(weights * np.linalg.solve(own, weights), axis=(1, 2))

    def of(self, channels: np.ndarray) -> _Refitted:
        """See `_Loss.of`."""
        rows = self._rows(channels)
        return _Refitted(self._inverse[np.ix_(rows, rows)], self._weights[rows], self._size)

    def without(self, gone: np.ndarray, stays: np.ndarray) -> _Refitted:
        """See `_Loss.without`."""
        b, rest = self._rows(gone), self._rows(stays)
        across = self._inverse[np.ix_(b, rest)]
        away = np.linalg.solve(self._inverse[np.ix_(b, b)], across).T
        inverse = self._inverse[np.ix_(rest, rest)]
        inverse -= away @ across
        return _Refitted(inverse, self._weights[rest] - away @ self._weights[b], self._size)

    def _rows(self, channels: np.ndarray) -> np.ndarray:
        return (channels[:, None] * self._size + np.arange(self._size)).ravel()


class _Apart:
    """The loss without a refit, each input on its own, where a covariance would be too large."""

    def __init__(self, losses: np.ndarray):
        self._losses = losses

    @classmethod
    def of_reader(cls, reader: Reader, variances: np.ndarray, features: np.ndarray) -> _Apart:
        power = variances * np.square(reader.weights).sum(axis=1)
        total = power.sum() + np.finfo(float).tiny
        return cls(reader.share * power[features].sum(axis=1) / total)

    def costs(self) -> np.ndarray:
        """See `_Loss.costs`."""
        return self._losses

    def of(self, channels: np.ndarray) -> _Apart:
        """See `_Loss.of`."""
        return _Apart(self._losses[channels])

    def without(self, gone: np.ndarray, stays: np.ndarray) -> _Apart:
        """See `_Loss.without`: a channel's loss does not depend on the other channels."""
        return _Apart(self._losses[stays])
