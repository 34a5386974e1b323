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
        channels, producers and consumers. `layers` that have weights, each with
        its name, class, MACs and parameters. `plans`, each with the channels
        `kept` by the groups and the `macs` and `params` of the layers, in the
        same order. Costs that no plan changes and that no layer of the table
        holds (the MACs of attention, for example) are left out.

    Raises:
        AmcError: the model's input size is not fixed, or a plan does not fit.
    """
    classes = {site.name: type(site.call.operation).__name__ for site in graph.first_sites()}
    costs = {name: make(graph) for name, make in COSTS.items()}
    dense = {name: by_layer(cost, cost.dense) for name, cost in costs.items()}
    layers = [name for name in classes if any(dense[cost].get(name) for cost in costs)]
    kept = {policy: plan_counts(graph, plan) for policy, plan in plans.items()}

    def of_layers(cost: Cost, counts: np.ndarray) -> list[int]:
        found = by_layer(cost, counts)
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


def by_layer(cost: Cost, counts: np.ndarray) -> dict[str, int]:
    """Returns the part of a cost in each layer, when group i keeps `counts[i]` channels."""
    found: dict[str, int] = {}
    for layer, value in zip(cost.sites, cost.terms(counts).tolist(), strict=True):
        found[layer] = found.get(layer, 0) + value
    return found
