"""The rewards of a plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


def _err(score: float, costs: Mapping[str, float]) -> float:
    return -(1 - score)


def _priced(name: str, unit: float = 1.0) -> Callable[[float, Mapping[str, float]], float]:
    """Returns the reward of the error times the logarithm of a cost.

    The unit is small enough that every cost is far above 1 and its logarithm positive.
    """

    def reward(score: float, costs: Mapping[str, float]) -> float:
        return -(1 - score) * math.log(costs[name] / unit)

    return reward


# AMC, section 3.3. `err` needs a budget to prune at all; the others trade the
# cost against the error themselves. Latency is priced in nanoseconds, whose
# number is about that of the MACs.
REWARDS: Mapping[str, Callable[[float, Mapping[str, float]], float]] = {
    "err": _err,
    "flops": _priced("macs"),
    "params": _priced("params"),
    "latency": _priced("latency", 1e-6),
}
