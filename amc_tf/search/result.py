"""The result of a search."""

from __future__ import annotations

import dataclasses
from typing import Any

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.refit.methods import Refit
from amc_tf.runs.choice import Choice
from amc_tf.search.env.base import Outcome
from amc_tf.search.latency_choice import Measured
from amc_tf.training.metric import Metric
from amc_tf.training.uncertainty import Uncertainty


@dataclasses.dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    Attributes:
        graph: the analysed model.
        chosen: name of the policy whose plan was chosen.
        choice: what decided that.
        best: best outcome of each policy, by the policy's name; of the chosen policy, that of the
            chosen plan.
        bounds: the budget in absolute terms, by name of the cost.
        dense_score: score of the unpruned model on the validation data.
        metric: what the scores are.
        reward: the reward that guided the search, a name of `amc_tf.search.env.rewards.REWARDS`.
        uncertainty: how uncertain the scores are.
        final: refit that restores the weights of the networks that are built.
        measured: measured latency of the chosen network and of the dense one beside it; None
            where latency is not bounded.
        constant_score: best score of one answer to every input on the validation data; None if
            it is not known.
    """

    graph: ChannelGraph
    chosen: str
    choice: Choice
    best: dict[str, Outcome[PruningPlan]]
    bounds: dict[str, float]
    dense_score: float
    metric: Metric
    reward: str
    uncertainty: Uncertainty
    final: Refit[PruningPlan]
    measured: Measured | None = None
    constant_score: float | None = None

    @property
    def plan(self) -> PruningPlan:
        """The chosen plan."""
        return self.best[self.chosen].plan

    def refitted(self, plan: PruningPlan) -> dict[str, Any]:
        """Returns the weights for `amc_tf.rebuild(model, graph, plan, weights)`."""
        return self.final.refit(plan)
