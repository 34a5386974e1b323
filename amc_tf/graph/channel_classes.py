"""Classes of channel ids: what is kept together, and what is kept where several others are.

Where an axis of channels becomes heads and widths, a channel is kept if its head and its width are.
Its class is a *joint* class, whose *parts* are those of the head and of the width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from amc_tf.graph.layer_rule import Ids

Pairs = Sequence[tuple[Ids, Ids]]
# Ids, and for each of them one id of every part.
Joint = tuple[Ids, Sequence[Ids]]


@dataclasses.dataclass(frozen=True, eq=False)
class Classes:
    """The classes of all ids.

    Attributes:
        of_id: class of each id; classes are numbered in the order of their first ids.
        parts: for each joint class, the classes of its parts, which are joint no more.
        stuck: classes whose parts do not fit together; they must stay.
    """

    of_id: np.ndarray
    parts: Mapping[int, tuple[int, ...]]
    stuck: frozenset[int]

    @property
    def count(self) -> int:
        """Number of classes."""
        return int(self.of_id.max(initial=-1)) + 1


def classes_of(count: int, united: Pairs, joint: Sequence[Joint]) -> Classes:
    """Finds the classes of ids.

    A channel whose axis is cut in two ways has parts in both. They fit if those in the same place
    are kept together.

    Args:
        count: number of ids.
        united: ids that are kept together, position by position.
        joint: ids that are kept where all their parts are.
    """
    united = list(united)
    while True:
        of_id = _united(count, united)
        first: dict[int, tuple[int, ...]] = {}
        more: list[tuple[int, int]] = []
        stuck: set[int] = set()
        for whole, *parts in _distinct(of_id, joint):
            known = first.setdefault(whole, tuple(parts))
            if len(known) != len(parts):
                stuck.update(known[:-1], parts[:-1])
                known, parts = known[-1:], parts[-1:]
            more += [(a, b) for a, b in zip(known, parts, strict=True) if a != b]
        if not more:
            break
        an_id = np.unique(of_id, return_index=True)[1]
        a, b = np.array(more).T
        united.append((an_id[a], an_id[b]))
    parts, cyclic = _single(first)
    return Classes(of_id, parts, frozenset(stuck | cyclic))


def _united(count: int, united: Pairs) -> np.ndarray:
    pairs = [np.stack([a, b]) for a, b in united]
    a, b = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
    links = coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    labels = connected_components(links, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _distinct(of_id: np.ndarray, joint: Sequence[Joint]) -> Iterator[list[int]]:
    """Yields the class of each joint channel with those of its parts, each once."""
    for whole, parts in joint:
        rows = np.stack([of_id[ids] for ids in (whole, *parts)], axis=1)
        yield from np.unique(rows, axis=0).tolist()


def _single(
    first: Mapping[int, tuple[int, ...]],
) -> tuple[dict[int, tuple[int, ...]], set[int]]:
    """Replaces parts that are joint by theirs.

    Returns:
        The parts of each class; and the classes that are parts of themselves, with their parts.
    """
    parts: dict[int, tuple[int, ...]] = {}
    cyclic: set[int] = set()
    for whole, direct in first.items():
        found, seen = list(direct), {whole}
        while deeper := [p for p in found if p in first]:
            if seen.intersection(deeper):
                cyclic.update((whole, *found))
                break
            seen.update(deeper)
            found = [q for p in found for q in first.get(p, (p,))]
        else:
            parts[whole] = tuple(dict.fromkeys(found))
    return parts, cyclic
