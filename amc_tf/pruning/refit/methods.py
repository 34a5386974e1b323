"""The methods of restoring a pruned network's weights, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PlanT_contra, PruningPlan
from amc_tf.pruning.refit.batch_norm import Reestimated
from amc_tf.pruning.refit.dense import gather
from amc_tf.pruning.refit.in_order import gather_in_order
from amc_tf.training.data import evenly_spaced


class Refit(Protocol[PlanT_contra]):
    """A method of restoring a pruned network's weights."""

    def refit(self, plan: PlanT_contra) -> dict[str, np.ndarray]:
        """Returns weights that replace the dense ones, by `layer/weight`, in the dense shape."""
        ...


class NoRefit:
    """A refit that changes no weights."""

    def refit(self, plan: PruningPlan) -> dict[str, np.ndarray]:
        """Returns no weights."""
        return {}


def _none(graph: ChannelGraph, images: Sequence[np.ndarray], seed: int) -> Refit:
    return NoRefit()


def _dense(graph: ChannelGraph, images: Sequence[np.ndarray], seed: int) -> Refit:
    return gather(graph, images, seed=seed)


def _in_order(graph: ChannelGraph, images: Sequence[np.ndarray], seed: int) -> Refit:
    return gather_in_order(graph, images, in_file=True, seed=seed)


def quick(
    graph: ChannelGraph,
    images: Sequence[np.ndarray],
    seed: int,
    few: int = 250,
    rows_per_feature: int = 16,
) -> Refit[PruningPlan]:
    """Makes an in-order refit that says at little cost which plans are good.

    Args:
        graph: the analysed model.
        images: calibration images, one array for each input.
        seed: seed of sampled positions.
        few: number of images that are used, evenly spread over those that are given.
        rows_per_feature: see `gather_in_order`.
    """
    used = evenly_spaced(len(images[0]), few)
    return gather_in_order(
        graph,
        [array[used] for array in images],
        rows=2000,
        rows_per_feature=rows_per_feature,
        # Strong: the last layers have one row for each image, and a weak one would overfit them.
        ridges=(1e-1,),
        rounds=2,
        seed=seed,
    )


def _batch_norm(graph: ChannelGraph, images: Sequence[np.ndarray], seed: int) -> Refit:
    return Reestimated(graph, images, NoRefit())


def _dense_batch_norm(graph: ChannelGraph, images: Sequence[np.ndarray], seed: int) -> Refit:
    return Reestimated(graph, images, gather(graph, images, seed=seed))


# Name to a function that makes the refit from (graph, calibration images, seed). `dense` solves
# from statistics of the dense network, in milliseconds for each plan. `in_order` runs the pruned
# network over all images for each plan, and is by far the better one (benchmarks/refit.py).
# `quick_in_order` does so over a few images.
REFITS: Mapping[str, Callable[[ChannelGraph, Sequence[np.ndarray], int], Refit[PruningPlan]]] = {
    "none": _none,
    "batch_norm": _batch_norm,
    "dense": _dense,
    "dense_batch_norm": _dense_batch_norm,
    "quick_in_order": quick,
    "in_order": _in_order,
}
