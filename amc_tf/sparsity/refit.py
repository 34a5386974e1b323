"""Least-squares refit of the weights that a density plan keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.refit.in_order import gather_in_order
from amc_tf.sparsity.masks import MagnitudeMasks
from amc_tf.sparsity.plan import DensityPlan


class SparseReconstruction:
    """Magnitude masks, and what they keep refitted layer by layer (a `Refit`).

    Each kernel is fitted on the inputs that it really gets, towards what the
    dense network computed there (see `amc_tf.pruning.refit.in_order`); zeros stay zeros.

    Args:
        graph: the analysed model.
        images: one array (images, ...) for each model input; unlabelled.
        seed: of the positions sampled.
    """

    def __init__(self, graph: ChannelGraph, images: Sequence[np.ndarray], seed: int = 0):
        self._magnitude = MagnitudeMasks(graph)
        self._dense = gather_in_order(graph, images, seed=seed)

    def refit(self, plan: DensityPlan) -> dict[str, np.ndarray]:
        """The masked and refitted kernels, with the biases and means that go with them."""
        masks = self._magnitude.masks(plan)
        weights = self._magnitude.refit(plan)
        return self._dense.fit_sparse(weights, masks)
