"""The kernels whose weights can be pruned one by one, and what each weight costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from amc_tf.channels import ChannelGraph, Site
from amc_tf.errors import AmcError
from amc_tf.rule import positions
from amc_tf.surgery import mixing_weights, numpy_of

# Densities are multiples of 1 / STEPS.
STEPS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel.

    Attributes:
        name: `layer/weight`.
        site: the layer's first call.
        weight: the Keras variable.
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
        value = np.abs(numpy_of(self.weight)).ravel()
        # Stable, so that of equal weights the same are kept wherever this runs.
        order = np.argsort(-value, kind="stable")[: int(self.kept(steps))]
        mask = np.zeros(value.size, bool)
        mask[order] = True
        return mask.reshape(self.weight.shape)


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
        uses = 0
        for call in (s for s in graph.sites if s.call.operation is site.call.operation):
            side = call.call.outputs if site.rule.macs[weight.name] == "out" else call.call.inputs
            count = positions(graph.network.tensors[side[0]].shape)
            if count is None:
                raise AmcError(
                    f"the MACs of {site.name!r} are unknown, because its size is not fixed; give "
                    "the model a fixed input size, e.g. keras.Input((224, 224, 3))"
                )
            uses += count
        found.append(Kernel(f"{site.name}/{weight.name}", site, weight, uses))
    if not found:
        raise AmcError(
            f"model {graph.network.model.name!r} has no kernel that sums over channels; there is "
            "nothing to make sparse"
        )
    return tuple(found)
