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
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from amc_tf.graph.channel_graph import Group
from amc_tf.pruning.refit.dense import Consumer, Reconstruction
from amc_tf.pruning.refit.statistics import Moments, ridge_term
from amc_tf.pruning.weights import named_weight, numpy_of


def elimination_order(
    refit: Reconstruction, otherwise: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Finds the order in which channels are removed, as an importance.

    Where several layers read a channel, the error of each counts relative to
    the power of its output.

    Args:
        refit: statistics of the dense network, from `amc_tf.pruning.refit.gather`.
        otherwise: importance of the groups that no refitted layer reads.

    Returns:
        Group name to float64 array (channels,), 0 for the channel removed
        first; an argument of `amc_tf.pruning.importance.strongest`.
    """
    graph = refit.graph
    consumers = {consumer.site.name: consumer for consumer in refit.consumers}
    result = {}
    for name, group in graph.groups.items():
        losses = [
            _loss(consumers[reader], group, refit.ridge)
            for reader in group.consumers
            if reader in consumers
        ]
        order = _eliminate(group.channels, losses) if losses else np.argsort(otherwise[name])
        result[name] = np.argsort(order).astype(np.float64)
    return result


def _eliminate(channels: int, losses: Sequence[_Loss]) -> list[int]:
    """Returns all channels in the order in which they are removed."""
    left = list(range(channels))
    order = []
    while left:
        costs = np.sum([loss.of(left) for loss in losses], axis=0)
        order.append(left.pop(int(np.argmin(costs))))
        for loss in losses:
            loss.remove(order[-1])
    return order


class _Loss(Protocol):
    """The squared error of one consumer's output, relative to the power of that output."""

    def of(self, channels: Sequence[int]) -> np.ndarray:
        """Returns for each of these channels the loss if it were the next to be removed."""
        ...

    def remove(self, channel: int) -> None:
        """Removes a channel."""
        ...


def _loss(consumer: Consumer, group: Group, ridge: float) -> _Loss:
    site = consumer.site
    kernel = numpy_of(named_weight(site.call.operation, consumer.kernel))
    weights = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    classes = site.roles[site.rule.mixes[consumer.kernel]]
    classes = np.tile(classes, len(weights) // len(classes))
    features = np.stack([np.flatnonzero(classes == c) for c in group.classes])
    statistics = consumer.statistics
    if not isinstance(statistics, Moments):
        return _Apart(statistics.variances, weights, features)
    covariance = statistics.covariance(centred=consumer.intercept is not None)
    return _Refitted(covariance, weights, features, ridge)


class _Refitted:
    """The loss after a least-squares refit of the channels that are left."""

    def __init__(
        self, covariance: np.ndarray, weights: np.ndarray, features: np.ndarray, ridge: float
    ):
        term = ridge_term(np.diag(covariance), ridge)
        covariance = covariance + term * np.eye(len(covariance))
        self._power = np.sum(weights * (covariance @ weights)) + np.finfo(float).tiny
        self._inverse = np.linalg.inv(covariance)
        self._weights = weights
        self._features = features

    def of(self, channels: Sequence[int]) -> np.ndarray:
        """See `_Loss.of`."""
        b = self._features[channels]
        own, weights = self._inverse[b[:, :, None], b[:, None, :]], self._weights[b]
        return np.sum(weights * np.linalg.solve(own, weights), axis=(1, 2)) / self._power

    def remove(self, channel: int) -> None:
        """See `_Loss.remove`."""
        b = self._features[channel]
        away = np.linalg.solve(self._inverse[np.ix_(b, b)], self._inverse[b]).T
        self._weights = self._weights - away @ self._weights[b]
        self._inverse = self._inverse - away @ self._inverse[b]


class _Apart:
    """The loss without a refit, each input on its own, where a covariance would be too large."""

    def __init__(self, variances: np.ndarray, weights: np.ndarray, features: np.ndarray):
        power = variances * np.square(weights).sum(axis=1)
        self._losses = power[features].sum(axis=1) / (power.sum() + np.finfo(float).tiny)

    def of(self, channels: Sequence[int]) -> np.ndarray:
        """See `_Loss.of`."""
        return self._losses[channels]

    def remove(self, channel: int) -> None:
        """Does nothing: a channel's loss does not depend on the other channels."""
