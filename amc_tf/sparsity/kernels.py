"""The kernels whose weights can be pruned one by one, and what each weight costs."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.costs import multiplications
from amc_tf.pruning.weights import mixing_weights, numpy_of

# Densities are multiples of 1 / STEPS.
STEPS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel.

    Attributes:
        name: `layer/weight`.
        site: the layer's first call.
        weight: the Keras variable; it must not change while the kernel is in use.
        uses: how often each weight is multiplied in one forward pass of one sample.
    """

    name: str
    site: Site
    weight: Any
    uses: int

    @property
    def size(self) -> int:
        """Weights in it."""
        return int(np.prod(self.weight.shape))

    def kept(self, steps: int | np.ndarray) -> int | np.ndarray:
        """Weights kept at a density of `steps` / STEPS: exact, at least one."""
        return np.maximum(1, (self.size * np.asarray(steps) + STEPS // 2) // STEPS)

    def mask(self, steps: int) -> np.ndarray:
        """Which weights are kept, those of largest magnitude: boolean, shaped as the kernel."""
        mask = np.zeros(self.size, bool)
        mask[self._order[: int(self.kept(steps))]] = True
        return mask.reshape(self.weight.shape)

    @functools.cached_property
    def _order(self) -> np.ndarray:
        """The weights from the largest to the smallest: sorted once, for all plans of a search."""
        # Stable, so that of equal weights the same are kept wherever this runs.
        return np.argsort(-np.abs(numpy_of(self.weight)).ravel(), kind="stable")


def kernels(graph: ChannelGraph) -> tuple[Kernel, ...]:
    """Every kernel that sums over channels, in the order of the network.

    Depthwise kernels are left alone: they are few weights, and no runtime
    makes use of zeros in them. So are those of frozen layers that the analysis
    does not follow.

    Raises:
        AmcError: there are none, or the model's input size is not fixed.
    """
    found = []
    for site, weight, _ in mixing_weights(graph):
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
