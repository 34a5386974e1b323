"""The groups of a search and the costs of its networks by layer, as JSON for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.costs import COSTS, Cost, plan_counts
from amc_tf.graph.plan import PruningPlan


def breakdown(graph: ChannelGraph, plans: Mapping[str, PruningPlan]) -> dict[str, Any]:
    """Describes the groups and layers of a network, dense and under plans.

    Args:
        graph: the analysed network.
        plans: plan of each policy, by the policy's name.

    Returns:
        `name` of the model. `groups`, from input to output, each with its name,
        channels, producers and consumers. `layers` that cost something, each with
        its name, class, MACs and parameters. `plans`, each with the channels
        `kept` by the groups and the `macs` and `params` of the layers, in the
        same order.

    Raises:
        AmcError: the model's input size is not fixed, or a plan does not fit.
    """
    classes = {
        graph.network.name(operation): type(operation).__name__
        for operation in graph.network.operations()
    }
    costs = {name: make(graph) for name, make in COSTS.items()}
    dense = {name: cost.by_layer(cost.dense) for name, cost in costs.items()}
    layers = [name for name in classes if any(dense[cost].get(name) for cost in costs)]
    kept = {policy: plan_counts(graph, plan) for policy, plan in plans.items()}

    def of_layers(cost: Cost, counts: np.ndarray) -> list[int]:
        found = cost.by_layer(counts)
        return [found.get(layer, 0) for layer in layers]

    return {
        "name": graph.network.model.name,
        "groups": [
            {
                "name": group.name,
                "channels": group.channels,
                "producers": group.producers,
                "consumers": group.consumers,
            }
            for group in graph.groups.values()
        ],
        "layers": [
            {
                "name": name,
                "class": classes[name],
                **{cost: dense[cost].get(name, 0) for cost in costs},
            }
            for name in layers
        ],
        "plans": {
            policy: {
                "kept": counts.tolist(),
                **{name: of_layers(cost, counts) for name, cost in costs.items()},
            }
            for policy, counts in kept.items()
        },
    }
