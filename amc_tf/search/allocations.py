"""The plans that are made for one network and budget, each of a policy of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.streams import streams
from amc_tf.pruning.importance.criteria import Importance
from amc_tf.pruning.importance.refit_curves import losses_of
from amc_tf.runs.workdir import Workdir
from amc_tf.search.agents.global_ranking import global_ranking
from amc_tf.search.agents.knapsack import knapsack
from amc_tf.search.env.base import DecisionEnv
from amc_tf.search.kept_curves import kept_curves
from amc_tf.search.kept_importance import kept_importance
from amc_tf.search.settings import GLOBAL_RANKINGS, KNAPSACK, SearchSettings
from amc_tf.training.task import Task


def allocated(
    env: DecisionEnv,
    graph: ChannelGraph,
    task: Task,
    settings: SearchSettings,
    images: Sequence[np.ndarray],
    importance: Importance,
    folder: Workdir,
) -> dict[str, list[float]]:
    """Makes the plans that the settings name; none without a budget.

    Args:
        env: the decisions, one for each group.
        graph: the analysed network.
        task: its data, for criteria that use it.
        settings: the settings of the search.
        images: calibration images, one array for each model input.
        importance: the scores by which the search's plans keep channels.
        folder: work directory, which keeps what the plans rest on.

    Returns:
        Executable preserve ratios by the policy's name.

    Raises:
        AmcError: see `kept_curves` and `kept_importance`.
    """
    plans: dict[str, list[float]] = {}
    if env.budget is None:
        return plans
    if KNAPSACK in settings.policies:
        curves = kept_curves(graph, images, importance, settings.seed, folder)
        plans[KNAPSACK] = knapsack(env, losses_of(curves, graph, env.choices))
    joined = streams(graph)
    whole = [t for t, name in enumerate(graph.groups) if name in joined]
    for policy, criterion in GLOBAL_RANKINGS.items():
        if policy in settings.policies:
            scores = kept_importance(graph, task, criterion, folder, of_search=False)
            ranked = [scores[name] for name in graph.groups]
            plans[policy] = global_ranking(env, ranked, streams=whole)
    return plans
