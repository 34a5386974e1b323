"""What a pruned network is to imitate: the dense network's outputs, and features on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.features import Feature, called_once, with_features
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import mixing_kernels


def features(graph: ChannelGraph, plan: PruningPlan) -> list[Feature]:
    """Finds the values that kernels read, in order: what a layer's pruning and refit end in.

    Args:
        graph: the analysed dense model.
        plan: the plan of the pruned one.
    """
    network, keep = graph.network, graph.keep_mask(plan)
    makers = {n: call for call in called_once(network).values() for n in call.outputs}
    found: dict[str, Feature] = {}
    for site, weight in mixing_kernels(graph):
        if site.rule.mixed(weight.name) != ("in",):
            continue  # a recurrent kernel reads what the layer itself made; others, several axes
        call, classes = makers.get(site.call.inputs[0]), site.roles["in"]
        if call is None or len(call.outputs) > 1:
            continue
        if network.tensors[call.outputs[0]].shape[-1] == len(classes):
            name = network.name(call.operation)
            found[name] = Feature(name, np.flatnonzero(keep[classes]))
    return list(found.values())


def teacher(
    graph: ChannelGraph, wanted: Sequence[Feature]
) -> Callable[[Sequence[np.ndarray]], list[tf.Tensor]]:
    """Returns a function of inputs, which gives the dense network's outputs and features.

    Of each feature, it gives the channels that the pruned network has.
    """
    model = with_features(rebuild(graph.network.model, graph, None), wanted)
    outputs = len(graph.network.outputs)

    @tf.function
    def run(*inputs: tf.Tensor) -> list[tf.Tensor]:
        values = keras.tree.flatten(model(list(inputs), training=False))
        of_features = zip(values[outputs:], wanted, strict=True)
        return [*values[:outputs], *(tf.gather(v, f.kept, axis=-1) for v, f in of_features)]

    return lambda arrays: run(*map(tf.convert_to_tensor, arrays))
