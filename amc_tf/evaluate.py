"""The score of a plan, without rebuilding or retracing a model."""

from __future__ import annotations

import numpy as np

from amc_tf.channels import ChannelGraph
from amc_tf.plan import PruningPlan
from amc_tf.reconstruct import Reconstruction
from amc_tf.surgery import mask, masked_weights, numpy_of
from amc_tf.task import Task


class MaskedScorer:
    """Scores plans on the validation data with one full-size model.

    The owner's own compile and evaluate see an ordinary Keras model whose
    pruned rows are zero, which computes exactly what the pruned one would; it
    is compiled and traced once, and each plan only assigns weights.
    """

    def __init__(self, graph: ChannelGraph, task: Task, reconstruction: Reconstruction | None):
        self._graph = graph
        self._task = task
        self._reconstruction = reconstruction
        self._data = task.prepared(task.validation)
        self._model = task.compiled(mask(graph.network.model, graph, None), graph.network.model)
        self._variables = {
            f"{layer.name}/{weight.name}": weight
            for layer in self._model.layers
            for weight in layer.weights
        }
        self._dense: dict[str, np.ndarray] = {}  # of every weight changed so far

    def __call__(self, plan: PruningPlan | None) -> float:
        """The accuracy of the network under a plan (None: dense), before fine-tuning.

        Raises:
            AmcError: the owner's evaluate does not give a usable number.
        """
        refitted = {}
        if plan is not None and self._reconstruction is not None:
            refitted = self._reconstruction.refit(plan)
        weights = masked_weights(self._graph, plan, refitted)
        for name in weights:
            if name not in self._dense:
                self._dense[name] = numpy_of(self._variables[name])
        for name, dense in self._dense.items():
            self._variables[name].assign(weights.get(name, dense))
        return self._task.score(self._model, self._data)
