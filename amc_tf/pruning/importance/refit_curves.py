"""How much of its readers' outputs a group loses, for each number of channels that it keeps.

A layer that reads some of its input channels is refitted by least squares. What the refit leaves is
known in closed form from the second moments of the dense network's inputs: nothing is run again.
The weights are fitted on the moments of one half of the images and the error is taken on those of
the other, as a layer with hardly more rows than features (the classifier, which has one row an
image) would otherwise seem to lose nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph, Group
from amc_tf.pruning.importance.criteria import Importance
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.importance.readers import Reader, readers_of
from amc_tf.pruning.refit.statistics import Statistics, one_blas_thread

_LEVELS = 12  # numbers of channels at which a curve is computed; it is linear in between
_LEAST = 0.1  # share of the channels at which it begins
_MOST = 10.0  # of a relative error, so that one unsound fit does not rule the sum


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """What a group loses.

    Attributes:
        counts: numbers of channels kept, ascending; the last is all of them.
        losses: squared error of the outputs of the layers that read the group, each relative to
            the power of its output and weighted by its share of the network's outputs (see
            `amc_tf.pruning.importance.readers`), summed, float64; it does not rise, and ends at 0.
    """

    counts: np.ndarray
    losses: np.ndarray

    def at(self, counts: np.ndarray) -> np.ndarray:
        """Returns the loss at any counts."""
        return np.interp(counts, self.counts, self.losses)


def refit_curves(halves: Halves, importance: Importance) -> dict[str, Curve]:
    """Computes the curve of every group that a refitted layer reads.

    Args:
        halves: statistics of the analysed model.
        importance: scores that say which channels are kept (see `strongest`).

    Raises:
        AmcError: see `amc_tf.pruning.refit.dense.gather`.
    """
    graph = halves.graph
    fitted, held_out = halves.parts
    statistics = {consumer.site.name: consumer.statistics for consumer in held_out.consumers}
    readers = {
        name: _Refitted(reader, statistics[name], fitted.ridge)
        for name, reader in readers_of(fitted).items()
    }
    found = {}
    with one_blas_thread():
        for name, group in graph.groups.items():
            of_group = [readers[reader] for reader in group.consumers if reader in readers]
            if of_group:
                order = group.classes[np.argsort(-importance[name], kind="stable")]
                found[name] = _curve(graph, group, order, of_group)
    return found


def _curve(
    graph: ChannelGraph, group: Group, order: np.ndarray, readers: Sequence[_Refitted]
) -> Curve:
    least = max(1, _LEAST * group.channels)
    counts = np.unique(np.rint(np.linspace(least, group.channels, _LEVELS)).astype(int))
    losses = []
    for count in counts.tolist():
        keep = np.ones(graph.classes, bool)
        keep[order[count:]] = False
        graph.joined(keep)
        losses.append(sum(reader.loss(keep) for reader in readers))
    # More channels never lose more; samples may say otherwise.
    return Curve(counts, np.maximum.accumulate(losses[::-1])[::-1])


class _Refitted:
    """The error of a layer that reads channels, on moments that its weights were not fitted to."""

    def __init__(self, reader: Reader, held_out: Statistics, ridge: float):
        self._reader, self._held_out, self._ridge = reader, held_out, ridge
        self._centred = reader.consumer.intercept is not None
        self._power = held_out.power(reader.weights, self._centred) + np.finfo(float).tiny

    def loss(self, keep: np.ndarray) -> float:
        """Returns the share of the outputs that is lost if only some classes are kept."""
        kept, weights = keep[self._reader.classes], self._reader.weights
        if kept.all():
            return 0.0
        error = -weights
        fitted = self._reader.consumer.statistics
        try:
            error[kept] = fitted.correction(kept, weights[~kept], self._ridge, self._centred)
        except np.linalg.LinAlgError:  # as the refit does then: what is kept stays as it is
            error[kept] = 0.0
        relative = self._held_out.power(error, self._centred) / self._power
        return self._reader.share * min(relative, _MOST)


def losses_of(
    curves: Mapping[str, Curve], graph: ChannelGraph, choices: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Returns the loss of each group at its allowed counts.

    A group without a curve, which no layer that can be refitted reads, is taken to lose what the
    others lose on average at the same share of channels.
    """
    losses = []
    for (name, group), allowed in zip(graph.groups.items(), choices, strict=True):
        if name in curves:
            losses.append(curves[name].at(allowed))
        else:
            losses.append(_average(curves, allowed / group.channels))
    return losses


def _average(curves: Mapping[str, Curve], shares: np.ndarray) -> np.ndarray:
    if not curves:
        return 1 - shares
    return np.mean([curve.at(shares * curve.counts[-1]) for curve in curves.values()], axis=0)
