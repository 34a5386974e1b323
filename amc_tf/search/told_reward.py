"""The reward on the scale on which searchers learn.

The agent's learning rates are made for the paper's rewards, which are of the order of 1. Rewards
of other metrics are of any size: a mean squared error may be 1e-6 or 1e6.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from amc_tf.training.metric import Metric

# Beyond these, a reward counts by its logarithm: a network that diverged says no more than that,
# and one such reward would hide the differences between all others. No fraction reaches the first,
# even where the reward is an error times the logarithm of a cost.
_OF_FRACTIONS, _OF_OTHERS = 100.0, 1.0


@dataclasses.dataclass(frozen=True)
class ToldReward:
    """A function from a reward to what searchers are told; the larger of two stays the larger.

    Rewards made of fractions are told as they are. Others are told as their distance from the
    dense network's, in units of the largest such distance of the plans that are known already (the
    hand-crafted ones, in a search within a budget).

    Divergences of any metric are told in units of the least one of the plans that are known: good
    plans are told about -1 and bad ones about -5, whatever the network and the budget.

    Attributes:
        zero: reward that is told as 0.
        unit: difference of rewards that is told as 1.
        linear: told rewards beyond this one, in either direction, count by their logarithm.
    """

    zero: float = 0.0
    unit: float = 1.0
    linear: float = _OF_FRACTIONS

    @classmethod
    def of(
        cls,
        metric: Metric,
        dense: float | None,
        known: Iterable[float],
        divergence: bool = False,
    ) -> ToldReward:
        """Returns the function for a metric.

        Args:
            metric: what the scores are.
            dense: reward of the dense network; None if it is not known.
            known: rewards of plans that were played before.
            divergence: whether rewards are negative divergences.
        """
        if divergence:
            # Nothing may be lost by a plan that prunes next to nothing.
            unit = min((-reward for reward in known if reward < 0), default=1.0)
            return cls(unit=unit)
        if metric.fraction and metric.mode == "max":
            return cls()
        rewards = list(known)
        zero = dense if dense is not None else max(rewards, default=0.0)
        unit = max((abs(reward - zero) for reward in rewards), default=0.0) or abs(zero) or 1.0
        return cls(zero, unit, _OF_OTHERS)

    def __call__(self, reward: float) -> float:
        """Returns what is told."""
        told = (reward - self.zero) / self.unit
        if abs(told) <= self.linear:
            return told
        return math.copysign(self.linear * (1 + math.log(abs(told) / self.linear)), told)
