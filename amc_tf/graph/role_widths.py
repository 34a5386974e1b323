"""The widths of a network as functions of the groups' channel counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph

# Factor of each group's count, and a constant.
Linear = tuple[np.ndarray, int]


class RoleWidths:
    """Counts the kept channels of vectors of channel classes.

    Args:
        graph: the analysed network.
        dense: the groups' full channel counts, int64 (groups,).
    """

    def __init__(self, graph: ChannelGraph, dense: np.ndarray):
        self._graph, self._dense = graph, dense
        self._group_of_class = np.full(graph.classes, -1)
        for i, group in enumerate(graph.groups.values()):
            self._group_of_class[group.classes] = i

    def of(self, classes: np.ndarray) -> list[list[Linear]]:
        """Returns the width of a vector as a sum of products of linear functions.

        Channels that are kept where a head and a width are make a product of the two counts.
        """
        single, several = [], []
        for class_number in classes.tolist():
            free = self._free_parts(class_number)
            (several if len(free) > 1 else single).append(free)
        groups = self._group_of_class[[free[0] for free in single if free]]
        total = np.bincount(groups, minlength=len(self._dense))
        fixed = len(single) - len(groups)
        products = list(self._products(several))
        if products and not total.any() and not fixed:
            return products
        return [[(total // self._dense, fixed)], *products]

    def _free_parts(self, class_number: int) -> tuple[int, ...]:
        """Returns the classes of groups on which a class depends."""
        parts = self._graph.parts.get(class_number, (class_number,))
        return tuple(part for part in parts if self._group_of_class[part] >= 0)

    def _products(self, several: Iterable[tuple[int, ...]]) -> Iterator[list[Linear]]:
        by_groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for parts in several:
            groups = self._group_of_class[list(parts)]
            order = np.argsort(groups, kind="stable")
            pair = tuple(parts[i] for i in order)
            by_groups.setdefault(tuple(groups[order].tolist()), []).append(pair)
        for groups, pairs in by_groups.items():
            distinct, times = np.unique(pairs, axis=0, return_counts=True)
            full = int(self._dense[list(groups)].prod())
            # Of k channels with k others, as in a Gram matrix; a channel with itself is linear.
            itself = len(groups) == 2 and groups[0] == groups[1]
            full -= int(self._dense[groups[0]]) if itself else 0
            if len(distinct) != full or (times != times[0]).any():
                raise AmcError(
                    "the channels of heads and widths do not make a whole grid, so their number "
                    "is not known; please report this network"
                )
            yield [
                self._linear(group, int(times[0]) if at == 0 else 1, -1 if itself and at else 0)
                for at, group in enumerate(groups)
            ]

    def _linear(self, group: int, factor: int, constant: int) -> Linear:
        return np.where(np.arange(len(self._dense)) == group, factor, 0), constant
