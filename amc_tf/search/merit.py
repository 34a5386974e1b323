"""The order of plans when the search is done: by what the user is told, the score.

During the search, the reward ranks plans. It may be the divergence of the outputs, as that is
smoother; but the metric is what the user asks for, so that it chooses among the best.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from amc_tf.runs.episode_log import CUT
from amc_tf.search.env.base import DecisionEnv, Outcome
from amc_tf.search.env.rewards import prices_cost
from amc_tf.training.metric import Metric

Rank = tuple[bool, float, float]


@dataclasses.dataclass(frozen=True)
class Merit:
    """A function to numbers of which the best plan has the largest.

    A score that was cut short is behind all others: it is an estimate from few images. Of equal
    scores, the reward decides.

    Attributes:
        metric: what the scores are.
        priced: whether the reward prices a cost; then it decides alone.
    """

    metric: Metric
    priced: bool

    @classmethod
    def in_env(cls, env: DecisionEnv) -> Merit:
        """Returns the function for the plans of an environment."""
        return cls(env.metric, prices_cost(env.reward_name))

    def __call__(self, outcome: Outcome) -> Rank:
        """Returns the rank of an outcome."""
        return self._rank(outcome.score, outcome.reward, outcome.cut)

    def of_record(self, record: Mapping[str, Any]) -> Rank:
        """Returns the rank of a record of the log."""
        return self._rank(record["score"], record["reward"], bool(record.get(CUT)))

    def _rank(self, score: float, reward: float, cut: bool) -> Rank:
        return not cut, reward if self.priced else self.metric.gain(score), reward
