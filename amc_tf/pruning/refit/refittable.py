"""Which layers can be refitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import layers as kl

from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.pruning.refit.sampling import LINEAR
from amc_tf.pruning.weights import mixing_weights, named_weight, numpy_of


def refittable(graph: ChannelGraph) -> Iterator[tuple[Site, Any]]:
    """The layers that least squares can refit (their last call), and their kernels.

    Grouped convolutions are left out, and so is what could not be analysed.
    """
    refused = {refusal.operation for refusal in graph.refused}
    for site, weight, _ in mixing_weights(graph):
        layer = site.call.operation
        whole = getattr(layer, "groups", 1) == 1 and site.name not in refused
        if isinstance(layer, LINEAR) and whole:
            yield graph.sites_of(layer)[-1], weight


def intercept(graph: ChannelGraph, site: Site):
    """Where a change of the mean output can be absorbed.

    The layer's own bias, or the moving mean of a batch norm that alone reads
    it; the linear output is what counts, so an activation in between rules
    the latter out.

    Returns:
        (layer's name, weight's name, value, sign of its effect); None if there is no such place.
    """
    layer = site.call.operation
    if layer.use_bias:
        return site.name, "bias", numpy_of(named_weight(layer, "bias")), 1.0
    after = graph.network.readers(site.call.outputs[0])
    linear = layer.activation is keras.activations.linear
    is_output = site.call.outputs[0] in graph.network.outputs
    if len(after) == 1 and linear and not is_output:
        norm = after[0].operation
        calls = [c for c in graph.network.calls if c.operation is norm]
        producers = graph.sites_of(layer)
        if type(norm) is kl.BatchNormalization and len(calls) == len(producers) == 1:
            mean = numpy_of(norm.moving_mean)
            return graph.network.name(norm), "moving_mean", mean, -1.0
    return None
