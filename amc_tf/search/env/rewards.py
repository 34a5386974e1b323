"""The rewards of a plan.

The paper's rewards are made of the error of a network. `Metric.error` says what stands in its
place: one minus the score for fractions of which more is better, such as an accuracy (the paper's
case), the score itself where less is better, and the negative score of any other metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from amc_tf.errors import AmcError, choice
from amc_tf.training.metric import Metric

Reward = Callable[[Metric, float, Mapping[str, float]], float]


def _err(metric: Metric, score: float, costs: Mapping[str, float]) -> float:
    return -metric.error(score)


def _priced(name: str, unit: float = 1.0) -> Reward:
    """Returns the reward of the error times the logarithm of a cost.

    The unit is small enough that every cost is far above 1 and its logarithm positive.
    """

    def reward(metric: Metric, score: float, costs: Mapping[str, float]) -> float:
        error = metric.error(score)
        if error < 0:  # the dearest plan would be the best
            raise AmcError(
                f"{_needed(metric)}, received {score:g}; use the reward 'err' with a budget"
            )
        return -error * math.log(costs[name] / unit)

    return reward


# AMC, section 3.3. `err` needs a budget to prune at all; the others trade the
# cost against the error themselves. Latency is priced in nanoseconds, whose
# number is about that of the MACs.
REWARDS: Mapping[str, Reward] = {
    "err": _err,
    "flops": _priced("macs"),
    "params": _priced("params"),
    "latency": _priced("latency", 1e-6),
}


def reward_of(name: str, metric: Metric) -> Reward:
    """Returns the reward of a name of `REWARDS`.

    Raises:
        AmcError: the name is unknown, or the reward cannot be made of the metric.
    """
    reward = choice("reward", name, REWARDS)
    if name != "err" and not metric.has_error:
        raise AmcError(
            f"the reward {name!r} multiplies an error by a cost, and {metric.title} "
            f"({metric.better}) is no error and no fraction; use the reward 'err' with a budget"
        )
    return reward


def _needed(metric: Metric) -> str:
    kind = "at most 1" if metric.mode == "max" else "of at least 0"
    return f"a reward that prices a cost needs the metric {metric.name!r} to be {kind}"
