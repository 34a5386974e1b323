"""Weights of layers by name, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph

# "layer/weight" -> an array of the dense weight's shape that replaces it.
Weights = Mapping[str, np.ndarray]


def mixing_weights(graph: ChannelGraph):
    """Yields (site, weight, axis) for the kernels that sum over channels, once for each layer."""
    for site in graph.first_sites():
        for weight, axes in site.rule.weight_axes(site.call.operation):
            if weight.name in site.rule.mixes:
                yield site, weight, axes.index(site.rule.mixes[weight.name])


def numpy_of(weight: Any) -> np.ndarray:
    """Returns a variable's value."""
    return keras.ops.convert_to_numpy(weight)


def has_weight(layer: Any, name: str) -> bool:
    """Whether a layer has a variable of that name."""
    return any(w.name == name for w in layer.weights)


def named_weight(layer: Any, name: str) -> Any:
    """Returns a layer's variable of that name."""
    return next(w for w in layer.weights if w.name == name)
