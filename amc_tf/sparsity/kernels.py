"""The kernels whose weights can be pruned one by one, and what each weight costs."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.costs import multiplications
from amc_tf.pruning.weights import mixing_kernels, numpy_of

# Densities are multiples of 1 / STEPS.
STEPS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel whose weights can be pruned one by one.

    Attributes:
        name: `layer/weight`.
        site: the layer's first call.
        weight: the Keras variable; it must not change while the kernel is in use.
        uses: number of multiplications by each weight in one forward pass of one sample.
    """

    name: str
    site: Site
    weight: Any
    uses: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.weight.shape))

    def kept(self, steps: int | np.ndarray) -> int | np.ndarray:
        """Returns the exact number of weights kept at a density of `steps` / STEPS, at least 1."""
        return np.maximum(1, (self.size * np.asarray(steps) + STEPS // 2) // STEPS)

    def mask(self, steps: int) -> np.ndarray:
        """Returns the mask of the weights of largest magnitude: boolean, shaped as the kernel."""
        mask = np.zeros(self.size, bool)
        mask[self._order[: int(self.kept(steps))]] = True
        return mask.reshape(self.weight.shape)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """Weights from the largest to the smallest magnitude; sorted once for a whole search."""
        # Stable, so that the same ones of equal weights are kept wherever this runs.
        return np.argsort(-np.abs(numpy_of(self.weight)).ravel(), kind="stable")


def kernels(graph: ChannelGraph) -> tuple[Kernel, ...]:
    """Finds every kernel that sums over channels, in the order of the network.

    Depthwise kernels are left out: they have few weights, and no runtime makes
    use of zeros in them. The kernels of frozen layers that the analysis does
    not follow are left out too.

    Raises:
        AmcError: there is no such kernel, or the model's input size is not fixed.
    """
    found = []
    for site, weight in mixing_kernels(graph):
        if weight.name not in site.rule.macs:
            continue
        calls = graph.sites_of(site.call.operation)
        uses = sum(multiplications(graph, call, weight) for call in calls)
        found.append(Kernel(f"{site.name}/{weight.name}", site, weight, uses))
    if not found:
        raise AmcError(
            f"model {graph.network.model.name!r} has no kernel that sums over channels; there is "
            "nothing to make sparse"
        )
    return tuple(found)
