"""The rewards of a plan.

The paper's rewards are made of the error of a network. `Metric.error` says what stands in its
place: one minus the score for fractions of which more is better, such as an accuracy (the paper's
case), the score itself where less is better, and the negative score of any other metric.

The divergence of the outputs from the dense network's says more: the same right answers, counted on
some hundreds of samples, may be more or less certain (see `amc_tf.training.divergence`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from amc_tf.errors import AmcError, choice
from amc_tf.training.divergence import FARTHEST
from amc_tf.training.metric import Metric
from amc_tf.training.score import Score

Reward = Callable[[Metric, Score, Mapping[str, float]], float]
ERROR, DIVERGENCE = "err", "divergence"


def _err(metric: Metric, score: Score, costs: Mapping[str, float]) -> float:
    return -metric.error(score)


def _divergence(metric: Metric, score: Score, costs: Mapping[str, float]) -> float:
    if score.divergence is None:
        raise AmcError(
            f"the reward {DIVERGENCE!r} is made of the divergence of a plan's outputs, received "
            f"{metric.written(score)} alone; use another workdir, or the reward {ERROR!r}"
        )
    return 0.0 - min(score.divergence, FARTHEST)  # of nothing lost it is 0, not -0


def _priced(name: str, unit: float = 1.0) -> Reward:
    """Returns the reward of the error times the logarithm of a cost.

    The unit is small enough that every cost is far above 1 and its logarithm positive.
    """

    def reward(metric: Metric, score: Score, costs: Mapping[str, float]) -> float:
        error = metric.error(score)
        if error < 0:  # the dearest plan would be the best
            raise AmcError(
                f"{_needed(metric)}, received {score:g}; use the reward {ERROR!r} with a budget"
            )
        return -error * math.log(costs[name] / unit)

    return reward


# AMC, section 3.3, but for the divergence. The first two need a budget to prune at all; the
# others trade the cost against the error themselves. Latency is priced in nanoseconds, whose
# number is about that of the MACs.
REWARDS: Mapping[str, Reward] = {
    ERROR: _err,
    DIVERGENCE: _divergence,
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
    if prices_cost(name) and not metric.has_error:
        raise AmcError(
            f"the reward {name!r} multiplies an error by a cost, and {metric.title} "
            f"({metric.better}) is no error and no fraction; use the reward {ERROR!r} with a budget"
        )
    return reward


def prices_cost(name: str) -> bool:
    """Returns whether the reward of a name prices a cost itself, in place of a budget."""
    return name not in (ERROR, DIVERGENCE)


def _needed(metric: Metric) -> str:
    kind = "at most 1" if metric.mode == "max" else "of at least 0"
    return f"a reward that prices a cost needs the metric {metric.name!r} to be {kind}"
