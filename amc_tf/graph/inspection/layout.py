"""Where to draw the boxes and edges of a directed acyclic graph."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

HEIGHT = 36  # height of a box, pixels
_GAP, _SPACE, _BEND = 26, 18, 6  # between rows, between boxes, width of a bend; pixels
_SWEEPS = 12


@dataclasses.dataclass(frozen=True)
class Layout:
    """The places of boxes and edges, in pixels.

    Attributes:
        boxes: (x of the middle, y of the top, width) of each box.
        edges: points (x, y) of each edge, which is vertical at each of them.
        width: width of the drawing.
        height: height of the drawing.
    """

    boxes: tuple[tuple[float, float, float], ...]
    edges: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    height: float


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]]) -> Layout:
    """Places boxes in rows from top to bottom (Sugiyama, Tagawa, Toda 1981).

    A box lies one row below the lowest box that it reads. An edge that crosses
    several rows passes through a narrow node in each of them; all edges from one
    box share these nodes. Sweeps down and up sort each row by the mean place of
    the nodes to which its nodes are linked, and put each node as near to that
    place as it fits.

    Args:
        widths: widths of the boxes, in pixels, in topological order.
        edges: numbers of the boxes (from, to), sorted by the second.
    """
    level, width = [0] * len(widths), list(widths)
    for source, target in edges:
        level[target] = max(level[target], level[source] + 1)
    bends: dict[tuple[int, int], int] = {}

    def bend(source: int, row: int) -> int:
        if (source, row) not in bends:
            bends[source, row] = len(level)
            level.append(row)
            width.append(_BEND)
        return bends[source, row]

    ways = []
    for source, target in edges:
        between = [bend(source, row) for row in range(level[source] + 1, level[target])]
        ways.append([source, *between, target])
    above: dict[int, set[int]] = defaultdict(set)
    below: dict[int, set[int]] = defaultdict(set)
    for way in ways:
        for a, b in zip(way, way[1:], strict=False):
            above[b].add(a)
            below[a].add(b)
    rows: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    for node, row in enumerate(level):
        rows[row].append(node)

    x = _placed(rows, width, above, below)
    left = min((x[n] - width[n] / 2 for n in range(len(x))), default=0) - _SPACE
    right = max((x[n] + width[n] / 2 for n in range(len(x))), default=0) + _SPACE
    top = [_GAP + row * (HEIGHT + _GAP) for row in level]

    def points(way: Sequence[int]) -> Iterable[tuple[float, float]]:
        for n in way[:-1]:
            if n >= len(widths):
                yield x[n] - left, top[n]
            yield x[n] - left, top[n] + HEIGHT
        yield x[way[-1]] - left, top[way[-1]]

    return Layout(
        boxes=tuple((x[n] - left, top[n], width[n]) for n in range(len(widths))),
        edges=tuple(tuple(points(way)) for way in ways),
        width=right - left,
        height=_GAP + len(rows) * (HEIGHT + _GAP),
    )


def _placed(rows, width, above, below) -> list[float]:
    """Sorts the rows; returns the x of each node's middle."""
    x = [0.0] * len(width)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = {}
            for node in row:
                tied = (above if down else below)[node]
                wanted[node] = sum(x[n] for n in tied) / len(tied) if tied else x[node]
            row.sort(key=wanted.__getitem__)
            # The place of each node if the row began at 0 and had no gaps.
            packed = np.cumsum([width[n] + _SPACE for n in row]) - [width[n] / 2 for n in row]
            shifts = _nondecreasing([wanted[n] - p for n, p in zip(row, packed, strict=True)])
            for node, place, shift in zip(row, packed, shifts, strict=True):
                x[node] = float(place + shift)
    return x


def _nondecreasing(values: Iterable[float]) -> list[float]:
    """Returns the nearest nondecreasing sequence by least squares (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []  # (sum, count)
    for value in values:
        total, count = value, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            earlier = pools.pop()
            total, count = total + earlier[0], count + earlier[1]
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]
