"""A full-size model that takes one plan after another."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.masking import mask, masked_weights
from amc_tf.pruning.weights import numpy_of


class MaskedModel:
    """An ordinary Keras model whose pruned rows are zero (see `amc_tf.pruning.masking.mask`).

    It computes what the pruned model would, to float rounding. It is made
    once; each plan only assigns weights.

    Attributes:
        model: the Keras model, uncompiled.
    """

    def __init__(self, graph: ChannelGraph):
        self.model: keras.Model = mask(graph.network.model, graph, None)
        self._graph = graph
        self._variables = {
            f"{layer.name}/{weight.name}": weight
            for layer in self.model.layers
            for weight in layer.weights
        }
        self._dense: dict[str, np.ndarray] = {}  # dense value of every weight changed so far

    def assign(self, plan: PruningPlan | None, weights: Mapping[str, np.ndarray]) -> None:
        """Gives the model the weights of a plan, refitted ones by `layer/weight` included."""
        changed = masked_weights(self._graph, plan, weights)
        for name in changed:
            if name not in self._dense:
                self._dense[name] = numpy_of(self._variables[name])
        for name, dense in self._dense.items():
            self._variables[name].assign(changed.get(name, dense))
