"""How much the outputs of a layer move the outputs of the network.

An error in one output channel of a layer may change every answer of the network, or none. With g
the gradient of a network output by it, the change is g times the error. What counts is its square,
in the measure in which the network's outputs are compared, averaged over images: for a KL
divergence this is the diagonal of the Fisher information (Theis et al., "Faster gaze prediction
with dense networks and Fisher pruning", 2018, rank channels by it), which needs no labels. The sum
over all network outputs is estimated by the gradient of a random combination of them, drawn anew
for each image, so that one backward pass is enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf import story
from amc_tf.graph.activations import clipped
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.layer_kinds import UNBOUNDED
from amc_tf.graph.traced import traced
from amc_tf.pruning.refit.runner import Images
from amc_tf.pruning.weights import numpy_of
from amc_tf.training.data import evenly_spaced

_LOG = logging.getLogger(__name__)

# (the network's outputs, a generator) -> noise of each output, see `Divergence.noise`.
Noise = Callable[[Sequence[np.ndarray], np.random.Generator], Sequence[np.ndarray]]

_IMAGES = 100
_BATCH_BYTES = 2**27  # of all values of a forward pass, which a backward pass needs


def effects_of(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    operations: Collection[str],
    noise: Noise,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Computes how much the output channels of some layers move the network's outputs.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input; 100 evenly spaced ones are used.
        operations: names of the layers.
        noise: what says how changes of the network's outputs count.
        seed: seed of the noise.

    Returns:
        Name of a layer to the mean square, over images, of its channels' gradients, summed over
        positions and calls of the layer, float64 (channels,). Behind a fused rectifier, only
        what it lets through counts. A layer is left out if no gradient passes to it.
    """
    network, rng = graph.network, np.random.default_rng(seed)
    chosen = evenly_spaced(len(images[0]), _IMAGES)
    few = Images([array[chosen] for array in images], [t.dtype for t in network.model.inputs])
    batch_size = max(1, _BATCH_BYTES // (4 * sum(graph.trace.sizes)))

    def draw(*outputs: np.ndarray) -> list[np.ndarray]:
        drawn = zip(noise(outputs, rng), outputs, strict=True)
        return [np.asarray(d, output.dtype) for d, output in drawn]

    def run(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        watched: list[tuple[str, tf.Tensor]] = []
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def invoke(call, args, kwargs):
                output = infer(call.operation, args, kwargs)
                name = network.name(call.operation)
                if name in operations:
                    tape.watch(output)
                    watched.append((name, output))
                return output

            outputs = network.run(inputs, invoke)
        drawn = tf.numpy_function(draw, outputs, [output.dtype for output in outputs])
        directions = [
            tf.ensure_shape(d, output.shape)
            for d, output in zip(keras.tree.flatten(drawn), outputs, strict=True)
        ]
        values = [value for _, value in watched]
        gradients = tape.gradient(outputs, values, output_gradients=directions)
        found: dict[str, tf.Tensor] = {}
        for (name, value), gradient in zip(watched, gradients, strict=True):
            if gradient is not None:
                squares = tf.square(_let_through(graph, name, gradient, value))
                summed = tf.reduce_sum(squares, axis=range(squares.shape.rank - 1))
                found[name] = found.get(name, 0.0) + summed
        return found

    backward = traced(network, run)
    total: dict[str, np.ndarray] = {}
    for start in range(0, len(chosen), batch_size):
        batch = map(tf.convert_to_tensor, few.part(slice(start, start + batch_size)))
        try:
            found = backward(*batch)
        except (LookupError, TypeError, ValueError, tf.errors.OpError) as error:
            story.remark(_LOG, "it has no gradients, so channels are ranked without: %s", error)
            return {}
        for name, summed in found.items():
            total[name] = total.get(name, 0.0) + numpy_of(summed) / len(chosen)
    return {name: values for name, values in total.items() if np.isfinite(values).all()}


def _let_through(graph: ChannelGraph, name: str, gradient: Any, value: tf.Tensor) -> tf.Tensor:
    """Returns the gradient in front of a layer's own activation, if that clips."""
    own = getattr(graph.site(name).call.operation, "activation", None)
    found = tf.cast(tf.convert_to_tensor(gradient), tf.float64)
    low, high = bounds = clipped(own)
    if bounds == UNBOUNDED:
        return found
    return tf.where((value > low) & (value < high), found, 0.0)
