"""The network at full size with its pruned channels masked."""

from __future__ import annotations

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import Weights, mixing_weights, numpy_of


def mask(
    model: keras.Model,
    graph: ChannelGraph,
    plan: PruningPlan | None,
    weights: Weights | None = None,
) -> keras.Model:
    """Makes a full-size copy of the model that computes what the pruned one would.

    It zeroes rows of the kernels that *read* pruned channels: if it zeroed the
    filters that compute them, the beta of a batch norm would still get through.

    Args, Raises: as `rebuild`.

    Returns:
        A new, uncompiled model of the dense widths.
    """
    return rebuild(model, graph, None, masked_weights(graph, plan, weights))


def masked_weights(
    graph: ChannelGraph, plan: PruningPlan | None, weights: Weights | None = None
) -> dict[str, np.ndarray]:
    """Returns the weights that `mask` changes, by `layer/weight`, refitted ones included."""
    keep = graph.keep_mask(plan)
    result = dict(weights or {})
    for site, weight, axis in mixing_weights(graph):
        key = f"{site.name}/{weight.name}"
        value = result.get(key)
        rows = keep[site.roles[site.rule.mixes[weight.name]]]
        result[key] = _zeroed(numpy_of(weight) if value is None else value, axis, rows)
    return result


def _zeroed(value: np.ndarray, axis: int, keep: np.ndarray) -> np.ndarray:
    shape = [1] * value.ndim
    shape[axis] = len(keep)
    return np.where(keep.reshape(shape), value, np.zeros((), value.dtype))
