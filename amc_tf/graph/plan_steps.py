"""Plans on the way to a plan: a network may be pruned in steps, and trained in between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan


def towards(
    graph: ChannelGraph,
    plan: PruningPlan,
    importance: Mapping[str, Sequence[float]],
    share: float,
) -> PruningPlan:
    """Returns a plan that goes a share of the way from the whole network to a plan.

    It keeps all that the plan keeps and, of each group's other channels, the most important ones.

    Args:
        graph: the analysed network.
        plan: the plan.
        importance: scores (channels,) of each group.
        share: share of each group's pruned channels that is pruned, rounded down.
    """
    keep = {}
    for name, kept in plan.keep.items():
        others = np.setdiff1d(np.arange(graph.groups[name].channels), kept)
        scores = np.asarray(importance[name], np.float64)[others]
        most = others[np.argsort(-scores, kind="stable")]
        back = len(others) - math.floor(share * len(others))
        keep[name] = sorted([*kept, *most[:back].tolist()])
    return PruningPlan(keep)


def within(plan: PruningPlan, outer: PruningPlan) -> PruningPlan:
    """Returns a plan in the numbers of a network that is pruned already.

    Args:
        plan: a plan of the whole network.
        outer: the plan by which the network was pruned; it keeps all that `plan` keeps.

    Returns:
        The plan that prunes the rest.
    """
    keep = dict(plan.keep)
    for name, there in outer.keep.items():
        if name in keep:
            keep[name] = np.searchsorted(there, keep[name]).tolist()
    return PruningPlan(keep)
