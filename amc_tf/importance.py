"""Which channels of a group to keep, once it is known how many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from amc_tf.channels import ChannelGraph
from amc_tf.plan import PruningPlan
from amc_tf.surgery import mixing_weights, numpy_of

Importance = Mapping[str, np.ndarray]


def consumer_magnitude(graph: ChannelGraph) -> dict[str, np.ndarray]:
    """L1 norm of the weights that read each channel (AMC, section 3.2).

    Where several layers read a channel (a residual stream), each layer's norms
    are divided by their mean first, so that every layer has the same say.

    Args:
        graph: the analysed model; its present weights are read.

    Returns:
        Group name to float64 array (channels,).
    """
    score = np.zeros(graph.classes)
    for site, weight, axis in mixing_weights(graph):
        values = np.abs(numpy_of(weight).astype(np.float64))
        norms = values.sum(axis=tuple(i for i in range(values.ndim) if i != axis))
        classes = site.roles[site.rule.mixes[weight.name]]
        np.add.at(score, classes, norms / max(norms.mean(), np.finfo(float).tiny))
    return {name: score[group.classes] for name, group in graph.groups.items()}


def strongest(importance: Importance, counts: Mapping[str, int]) -> PruningPlan:
    """The plan that keeps the `counts[group]` most important channels of each group.

    Ties go to the lower index, so that the plan is a pure function of its arguments.
    """
    return PruningPlan(
        {
            name: np.sort(np.argsort(-importance[name], kind="stable")[:count]).tolist()
            for name, count in counts.items()
        }
    )
