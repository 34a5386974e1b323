"""How soon one search is as good as another, and medians of what may never happen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from amc_tf.runs.episode_log import CUT

P = TypeVar("P")


def best_so_far(
    episodes: Sequence[dict[str, Any]], ends: Sequence[float]
) -> list[tuple[float, dict[str, Any]]]:
    """Lists the episodes whose reward was above all before, with the seconds when they ended.

    Scores that were cut short are left out: no search ends with such a plan.

    Args:
        episodes: records of the log, in its order.
        ends: seconds at which each ended.
    """
    best, found = -math.inf, []
    for record, seconds in zip(episodes, ends, strict=True):
        if record["reward"] > best and not record.get(CUT):
            best = record["reward"]
            found.append((seconds, record))
    return found


def reached(
    plans: Iterable[tuple[float, P]], accuracy: Callable[[P], float], wanted: float
) -> float | None:
    """Returns the seconds of the first plan that is at least as accurate as `wanted`.

    Plans after it are not scored.

    Args:
        plans: seconds and plans, in the order of time.
        accuracy: function that scores a plan.
        wanted: least accuracy.
    """
    return next((seconds for seconds, plan in plans if accuracy(plan) >= wanted), None)


def ratio(ours: float | None, base: float | None) -> float | None:
    """Divides, and rounds to four digits; None if a part is unknown."""
    return None if ours is None or not base else round(ours / base, 4)


def median(values: Sequence[float | None]) -> float | None:
    """Computes a median in which None, for never, is above every number."""
    middle = statistics.median(math.inf if value is None else value for value in values)
    return None if math.isinf(middle) else round(middle, 4)
