"""The plans that are made for one network and budget, each of a policy of its own."""

from __future__ import annotations

from amc_tf.graph.streams import streams
from amc_tf.pruning.importance.criteria import Importance
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.importance.refit_curves import losses_of
from amc_tf.runs.workdir import Workdir
from amc_tf.search.agents.base import Allocations
from amc_tf.search.agents.global_ranking import global_ranking
from amc_tf.search.agents.knapsack import knapsack
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.kept_curves import kept_curves
from amc_tf.search.kept_importance import kept_importance
from amc_tf.search.settings import GLOBAL_RANKINGS, KNAPSACK, SearchSettings
from amc_tf.training.task import Task


def allocated(
    env: DecisionEnv,
    halves: Halves,
    task: Task,
    settings: SearchSettings,
    importance: Importance,
    folder: Workdir,
) -> Allocations:
    """Makes the plans that the settings name; none without a budget.

    What groups lose by the closed-form errors of their refits is the same for all groups only as
    far as later layers can repair it. A residual stream's channels cannot be repaired. So there are
    two plans of `knapsack`: that of all groups, and that in which the streams stay whole, if they
    can.

    Args:
        env: the decisions, one for each group.
        halves: statistics of the analysed network on calibration images.
        task: its data, for criteria that use it.
        settings: the settings of the search.
        importance: the scores by which the search's plans keep channels.
        folder: work directory, which keeps what the plans rest on.

    Returns:
        The plans, and what the groups lose if the settings ask for their sensitivity.

    Raises:
        AmcError: see `kept_curves` and `kept_importance`.
    """
    if env.budget is None:
        return Allocations()
    graph, plans, losses = halves.graph, {}, None
    joined = streams(graph)
    whole = [t for t, name in enumerate(graph.groups) if name in joined]
    if settings.sensitivity:
        curves = kept_curves(halves, importance, folder)
        losses = losses_of(curves, graph, env.choices)
        found = [knapsack(env, losses), knapsack(env, losses, whole)]
        plans[KNAPSACK] = found if found[0] != found[1] else found[:1]
    for policy, criterion in GLOBAL_RANKINGS.items():
        if policy in settings.policies:
            scores = kept_importance(halves, task, criterion, folder, of_search=False)
            ranked = [scores[name] for name in graph.groups]
            plans[policy] = [global_ranking(env, ranked, streams=whole)]
    return Allocations(plans, losses)
