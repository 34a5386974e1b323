"""Time as a function of widths, from as few measurements as possible.

Latency against a width is a staircase: a kernel works on 8, 16 or 32 channels
at once, and the last piece costs as much as a whole one. A line of points is
measured along each width, with all other widths at their largest. A stretch of
the line is taken as straight only if two neighbouring points inside it lie on
the straight line: a round number and the width after it, because there a
staircase has its steps.

Two widths together are nearly a product of their lines (work is their product).
The deviation from it is measured on a coarse lattice, and checked at random
points between those of the lattice; where one is off, the lattice is made
finer. Three and more widths, of a concatenation, are a sum of their lines.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

Point = tuple[int, ...]


class Unmeasured(Exception):  # noqa: N818 (it is an answer, not a failure)
    """Points whose times are needed to go on."""

    def __init__(self, points: Sequence[Point]):
        super().__init__(f"{len(points)} points are not measured yet")
        self.points = tuple(points)


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """The errors at which a predicted time counts as right.

    Attributes:
        relative: error allowed along a line, relative to the measured time.
        absolute_ms: error always allowed in addition, as measurements are uncertain.
        lattice: error allowed between the lattice's points, relative to the measured time.
        checks: number of random points at which a lattice is checked.
        refinements: largest number of times that a lattice is made finer.
    """

    relative: float = 0.05
    absolute_ms: float = 0.0
    lattice: float = 0.08
    checks: int = 4
    refinements: int = 3

    def met(self, predicted: float, measured: float, relative: float) -> bool:
        """Returns whether a predicted time is close enough."""
        return abs(predicted - measured) <= relative * measured + self.absolute_ms


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """Time as a function of widths. Made by `fit`.

    Attributes:
        corner_ms: time at the largest widths.
        knots: measured widths of each line, ascending.
        line_ms: times at the knots.
        lattice: for two widths, the lattice's values along each; else empty.
        correction: measured time divided by the product of lines, at the lattice's points.
    """

    corner_ms: float
    knots: tuple[np.ndarray, ...]
    line_ms: tuple[np.ndarray, ...]
    lattice: tuple[np.ndarray, ...] = ()
    correction: np.ndarray | None = None

    def __call__(self, point: Point) -> float:
        """Returns the time in milliseconds."""
        along = [
            float(np.interp(x, knots, times))
            for x, knots, times in zip(point, self.knots, self.line_ms, strict=True)
        ]
        if len(along) != 2:
            return max(0.0, self.corner_ms + sum(ms - self.corner_ms for ms in along))
        product = along[0] * along[1] / self.corner_ms if self.corner_ms else 0.0
        return product * self._correction(point)

    def _correction(self, point: Point) -> float:
        if self.correction is None:
            return 1.0
        rows = [np.interp(point[1], self.lattice[1], row) for row in self.correction]
        return float(np.interp(point[0], self.lattice[0], rows))


def fit(
    candidates: Sequence[np.ndarray],
    time: Callable[[Point], float | None],
    tolerance: Tolerance,
    seed: int = 0,
) -> Surface:
    """Fits a surface to measured points.

    It is a pure function of the times that it asks for: called again when these
    are known, it goes on from there. Other known times change nothing.

    Args:
        candidates: the values that each width can have in plans, ascending.
        time: function that returns the milliseconds at a point, None where it is not measured.
        tolerance: see `Tolerance`.
        seed: seed of the points that check the lattice.

    Returns:
        The `Surface`.

    Raises:
        Unmeasured: these points are needed next.
    """

    def times(points: Sequence[Point]) -> np.ndarray:
        found = [time(point) for point in points]
        missing = [p for p, ms in zip(points, found, strict=True) if ms is None]
        if missing:
            raise Unmeasured(list(dict.fromkeys(missing)))
        return np.array(found, float)

    corner = tuple(int(values[-1]) for values in candidates)
    lines = _lines(candidates, corner, times, tolerance)
    surface = Surface(
        float(times([corner])[0]),
        tuple(values[knots] for values, (knots, _) in zip(candidates, lines, strict=True)),
        tuple(ms for _, ms in lines),
    )
    if len(candidates) != 2 or min(map(len, candidates)) < 2:
        return surface
    return _with_lattice(surface, candidates, times, tolerance, np.random.default_rng(seed))


def _lines(candidates, corner, times, tolerance) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds the knots of every line, as indices and times; asks for the points of all at once."""
    results, missing = [], []
    for axis, values in enumerate(candidates):

        def along(indices: Sequence[int], axis=axis, values=values) -> np.ndarray:
            return times([(*corner[:axis], int(values[i]), *corner[axis + 1 :]) for i in indices])

        try:
            results.append(_line(values, along, tolerance))
        except Unmeasured as unmeasured:
            missing += unmeasured.points
    if missing:
        raise Unmeasured(list(dict.fromkeys(missing)))
    return results


def _line(values: np.ndarray, times, tolerance: Tolerance) -> tuple[np.ndarray, np.ndarray]:
    """Finds knots between which the line is straight."""
    last = len(values) - 1
    known = dict(zip((0, last), times((0, last)), strict=True))
    stretches = [(0, last)]
    while stretches:
        probes = [
            (low, _step(values, low, high), high) for low, high in stretches if high > low + 1
        ]
        measured = times([i for low, after, _ in probes for i in (max(low, after - 1), after)])
        stretches = []
        for (low, after, high), ms in zip(probes, measured.reshape(-1, 2), strict=True):
            inside = dict(zip((max(low, after - 1), after), ms, strict=True))
            straight = np.interp(values[[*inside]], values[[low, high]], (known[low], known[high]))
            met = all(
                tolerance.met(predicted, found, tolerance.relative)
                for predicted, found in zip(straight, inside.values(), strict=True)
            )
            known.update(inside)
            # Two points say little about half of a line.
            if high - low > last / 2 or not met:
                stretches += [(low, max(low, after - 1)), (after, high)]
    knots = np.array(sorted(known))
    return knots, np.array([known[i] for i in knots.tolist()])


def _step(values: np.ndarray, low: int, high: int) -> int:
    """Returns the index near the middle of a stretch that comes after a round number."""
    quarter = (high - low) // 4
    middle = range(low + max(1, quarter), high - max(1, quarter) + 1)

    def roundness(i: int) -> tuple[int, float]:
        before = int(values[i - 1])
        return before & -before, -abs(2 * i - low - high)

    return max(middle, key=roundness)


def _with_lattice(surface: Surface, candidates, times, tolerance, rng) -> Surface:
    """Multiplies a product of two lines by correction factors measured on a lattice."""
    anchors = [_spread(values) for values in candidates]
    checks = [
        tuple(int(rng.choice(values[:-1])) for values in candidates)
        for _ in range(tolerance.checks)
    ]
    for refinement in range(tolerance.refinements + 1):
        grid = [*itertools.product(*anchors)]
        measured = times([*grid, *checks])
        product = np.array([surface(point) for point in grid])
        on_grid = measured[: len(grid)]
        ratio = np.where(product > 0, on_grid / np.where(product > 0, product, 1), 1.0)
        corrected = dataclasses.replace(
            surface,
            lattice=tuple(np.array(a) for a in anchors),
            correction=ratio.reshape([len(a) for a in anchors]),
        )
        wrong = [
            point
            for point, ms in zip(checks, measured[len(grid) :], strict=True)
            if not tolerance.met(corrected(point), ms, tolerance.lattice)
        ]
        if not wrong or refinement == tolerance.refinements:
            return corrected
        # One at a time, as this may correct the others too.
        anchors = [sorted({*values, x}) for values, x in zip(anchors, wrong[0], strict=True)]
    raise AssertionError("the last refinement returns")


def _spread(values: np.ndarray, count: int = 4) -> list[int]:
    """Picks some of the values, including both ends, with about equal ratios between them."""
    wanted = np.geomspace(max(int(values[0]), 1), int(values[-1]), count)
    nearest = [int(values[np.argmin(np.abs(values - w))]) for w in wanted]
    return sorted({*nearest, int(values[0]), int(values[-1])})
