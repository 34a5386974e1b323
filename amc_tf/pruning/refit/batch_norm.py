"""Batch norm statistics of the pruned network (Li et al., "EagleEye", ECCV 2020).

The activations of a pruned network have other means and variances than those
that its batch norms hold. Forward passes over unlabelled images give the new ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers as kl

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.flattening import flatten
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.masked_model import MaskedModel
from amc_tf.pruning.refit.soundness import Soundness, check_samples
from amc_tf.pruning.weights import numpy_of

_STATISTICS = ("moving_mean", "moving_variance")


class Reestimated:
    """A `Refit` that runs another one and then re-estimates the batch norm statistics.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input.
        inner: the refit that comes first.
        batch_size: images in a forward pass; the statistics are means over the batches.

    Raises:
        AmcError: one of the images outweighs all others.
    """

    def __init__(
        self, graph: ChannelGraph, images: Sequence[np.ndarray], inner, batch_size: int = 250
    ):
        check_samples(images, graph.network.model)
        self._images = images
        self._inner = inner
        self._batch_size = batch_size
        self._masked = MaskedModel(graph)
        self._network = flatten(self._masked.model)
        self._norms = [
            operation
            for operation in self._network.operations()
            if isinstance(operation, kl.BatchNormalization)
        ]
        self._dense = {
            f"{self._network.name(norm)}/{name}": numpy_of(getattr(norm, name))
            for norm in self._norms
            for name in _STATISTICS
        }
        self._soundness = Soundness()

    def refit(self, plan: PruningPlan) -> dict[str, np.ndarray]:
        """Returns the inner refit's weights, and the batch norm statistics in the dense shape."""
        weights = dict(self._inner.refit(plan))
        self._masked.assign(plan, weights)
        starts = range(0, len(self._images[0]), self._batch_size)
        for batch, start in enumerate(starts):
            for norm in self._norms:
                norm.momentum = batch / (batch + 1)  # of a running mean over the batches
            part = slice(start, start + self._batch_size)
            self._network.run(
                [
                    keras.ops.cast(array[part], tensor.dtype)
                    for array, tensor in zip(self._images, self._masked.model.inputs, strict=True)
                ],
                self._invoke,
            )
        for norm in self._norms:
            layer = self._network.name(norm)
            found = {f"{layer}/{name}": numpy_of(getattr(norm, name)) for name in _STATISTICS}
            if all(self._soundness.holds(layer, found[key], self._dense[key]) for key in found):
                weights |= found
        return weights

    @staticmethod
    def _invoke(call, args, kwargs):
        # Only batch norms run in training mode: dropout would distort the statistics.
        if isinstance(call.operation, kl.BatchNormalization):
            return call.operation(*args, **{**kwargs, "training": True})
        return infer(call.operation, args, kwargs)
