"""The problem that settings describe, and its environment under a budget."""

from __future__ import annotations

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PlanT, PruningPlan
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.env.budget import UNKNOWN_LATENCY, Budget
from amc_tf.search.env.channels import channel_problem
from amc_tf.search.env.problem import Problem
from amc_tf.search.settings import SearchSettings


def problem_of(graph: ChannelGraph, settings: SearchSettings) -> Problem[PruningPlan]:
    """Returns the problem that settings describe.

    Its latency and the importance of its channels are not known yet.

    Raises:
        AmcError: see `channel_problem`.
    """
    constraints = settings.constraints
    return channel_problem(
        graph,
        rounding=constraints.roundings(graph, settings.rounding),
        min_preserve=constraints.min_preserves(graph, settings.min_preserve),
        strict=settings.rounding_strict,
    )


def environment(
    problem: Problem[PlanT], budget: Budget | None, settings: SearchSettings
) -> DecisionEnv[PlanT]:
    """Returns the environment of a problem under a budget.

    Raises:
        AmcError: see `DecisionEnv`.
    """
    return DecisionEnv(problem, budget, reward=settings.reward, fill_budget=settings.fill_budget)


def check(problem: Problem, budget: Budget | None, settings: SearchSettings) -> None:
    """Checks that the budget can be met, as far as this is known without a device.

    Latency that is not known yet exceeds no bound, as measuring its table takes minutes.

    Raises:
        AmcError: see `DecisionEnv`.
    """
    environment(problem.with_latency(UNKNOWN_LATENCY), budget, settings)
