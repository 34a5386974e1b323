"""The network at full size with its pruned channels masked."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.propagation import can_be_kept
from amc_tf.pruning.kept_normalization import KeptNormalization
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import (
    Weights,
    indexed_weights,
    mixing_weights,
    numpy_of,
)

# Of a batch norm: zeros would be divided by.
_DIVISORS = ("moving_variance", "moving_stddev", "renorm_stddev", "variance")


def mask(
    model: keras.Model,
    graph: ChannelGraph,
    plan: PruningPlan | None,
    weights: Weights | None = None,
) -> keras.Model:
    """Makes a full-size copy of the model that computes what the pruned one would.

    It zeroes rows of the kernels that *read* pruned channels: if it zeroed the
    filters that compute them, the beta of a batch norm would still get through.
    Where an operation without weights reads them (the product of queries and keys),
    it zeroes all weights that belong to these channels. Normalisations over channels
    that may be dropped take the statistics of those that are kept.

    Args, Raises: as `rebuild`.

    Returns:
        A new, uncompiled model of the dense widths.
    """

    def instead(site: Site) -> keras.Layer | None:
        if not normalised(graph, site):
            return None
        layer = site.call.operation
        return KeptNormalization(layer, name=site.name, dtype=layer.dtype_policy)

    return rebuild(model, graph, None, masked_weights(graph, plan, weights), instead)


def masked_weights(
    graph: ChannelGraph, plan: PruningPlan | None, weights: Weights | None = None
) -> dict[str, np.ndarray]:
    """Returns the weights that `mask` changes, by `layer/weight`, refitted ones included."""
    keep = graph.keep_mask(plan)
    result = dict(weights or {})

    def zero(site: Site, weight: Any, axis: int, rows: np.ndarray) -> None:
        key = f"{site.name}/{weight.name}"
        value = result.get(key)
        result[key] = _zeroed(numpy_of(weight) if value is None else value, axis, rows)

    for site, weight, axis, classes, _ in mixing_weights(graph):
        zero(site, weight, axis, keep[classes])
    for site in graph.first_sites():
        if normalised(graph, site):
            result[f"{site.name}/kept"] = keep[site.roles["in"]].astype(np.float32)
    # All but what is dropped and summed over is left as it is.
    stays = graph.joined(keep | ~graph.summed)
    if not stays.all():
        for site, weight, axis, classes, _ in indexed_weights(graph):
            if not stays[classes].all() and weight.name not in _DIVISORS:
                zero(site, weight, axis, stays[classes])
    return result


def normalised(graph: ChannelGraph, site: Site) -> bool:
    """Returns whether a site takes statistics over channels that may be dropped."""
    return can_be_kept(site.call.operation) and bool(graph.approximate[site.roles["in"]].any())


def _zeroed(value: np.ndarray, axis: int, keep: np.ndarray) -> np.ndarray:
    shape = [1] * value.ndim
    shape[axis] = len(keep)
    return np.where(keep.reshape(shape), value, np.zeros((), value.dtype))
