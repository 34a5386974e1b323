"""Scores of weights, added up by channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.weights import making_weights, numpy_of

Scores = Mapping[str, np.ndarray]
# Scores from one layer: (channel class of each of its positions, score of each position).
Part = tuple[np.ndarray, np.ndarray]


def summed(graph: ChannelGraph, parts: Iterable[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Sums scores over layers, scaled to mean 1: (score, whether any layer gave one) by class."""
    score, scored = np.zeros(graph.classes), []
    for classes, values in parts:
        np.add.at(score, classes, values / max(values.mean(), np.finfo(float).tiny))
        scored.append(classes)
    return score, known_classes(graph, scored)


def known_classes(graph: ChannelGraph, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Returns which classes are in any of the parts, by themselves or in a joint class."""
    found = np.zeros(graph.classes)
    for classes in parts:
        found[classes] = 1.0
    return graph.gathered(found) > 0


def choose(
    graph: ChannelGraph, known: np.ndarray, scores: Scores, others: Scores
) -> dict[str, np.ndarray]:
    """Returns the scores of the groups whose classes are known, and others of the rest."""
    return {
        name: (scores if known[group.classes].all() else others)[name]
        for name, group in graph.groups.items()
    }


def of_groups(graph: ChannelGraph, score: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the scores of each group's channels, by the group's name."""
    total = graph.gathered(score)
    return {name: total[group.classes] for name, group in graph.groups.items()}


def filters(graph: ChannelGraph) -> Iterator[Part]:
    """Yields each layer's filters: (channel class computed by each, weights (filters, size))."""
    for site, weight, axis, classes, _ in making_weights(graph):
        # Not a bias or a statistic. A block's own matrix is multiplied by other operations.
        matrix = not site.rule.macs and len(weight.shape) > 1
        if weight.name in site.rule.macs or matrix:
            yield classes, rows_of(numpy_of(weight), axis)


def rows_of(weight: np.ndarray, axis: int) -> np.ndarray:
    """Reshapes a weight to one row for each position of `axis`, float64 (positions, rest)."""
    rows = np.moveaxis(weight, axis, 0).astype(np.float64)
    return rows.reshape(len(rows), -1)


def l1(rows: np.ndarray) -> np.ndarray:
    """Returns the L1 norm of each row."""
    return np.abs(rows).sum(axis=1)
