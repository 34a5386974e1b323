"""Least-squares refit of the weights that a density plan keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.refit.in_order import gather_in_order
from amc_tf.pruning.refit.runner import Images, Runner, Stop
from amc_tf.sparsity.masks import MagnitudeMasks
from amc_tf.sparsity.plan import DensityPlan


class SparseReconstruction:
    """A `Refit` that masks weights by magnitude, and refits those kept, layer by layer.

    Each kernel is fitted on the inputs that it really gets, towards what the
    dense network computed there (see `amc_tf.pruning.refit.in_order`). Weights
    that are zero stay zero.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input; unlabelled.
        seed: seed of the sampled positions.
    """

    def __init__(self, graph: ChannelGraph, images: Sequence[np.ndarray], seed: int = 0):
        self._magnitude = MagnitudeMasks(graph)
        self._dense = gather_in_order(graph, images, seed=seed)

    def refit(self, plan: DensityPlan) -> dict[str, np.ndarray]:
        """Returns the masked and refitted kernels, and the biases and means that change too."""
        masks = self._magnitude.masks(plan)
        weights = self._magnitude.refit(plan)
        return self._dense.fit_sparse(weights, masks)

    def run_by(self, make: Callable[[Sequence[Stop], Images], Runner]) -> SparseReconstruction:
        """See `RunByOthers.run_by`."""
        other = copy.copy(self)
        other._dense = self._dense.run_by(make)
        return other
