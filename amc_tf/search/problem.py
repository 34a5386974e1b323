"""The environment that settings describe."""

from __future__ import annotations

from collections.abc import Callable

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.importance.criteria import Importance
from amc_tf.search.env.budget import UNKNOWN_LATENCY, Budget, CountCost
from amc_tf.search.env.channel_env import CompressionEnv
from amc_tf.search.settings import SearchSettings


def environment(
    graph: ChannelGraph,
    score: Callable[[PruningPlan], float],
    budget: Budget | None,
    settings: SearchSettings,
    importance: Importance | None = None,
    latency: CountCost | None = UNKNOWN_LATENCY,
) -> CompressionEnv:
    """The environment that settings describe; wishes that cannot be met are refused here.

    Latency that is not known yet breaks no bound: its table takes minutes.
    """
    constraints = settings.constraints
    return CompressionEnv(
        graph,
        score,
        budget,
        latency=latency,
        reward=settings.reward,
        rounding=constraints.roundings(graph, settings.rounding),
        min_preserve=constraints.min_preserves(graph, settings.min_preserve),
        fill_budget=settings.fill_budget,
        importance=importance,
    )


def no_score(plan: PruningPlan) -> float:
    """The score of an environment that is made only to be checked."""
    raise AssertionError("this environment only checks the budget")
