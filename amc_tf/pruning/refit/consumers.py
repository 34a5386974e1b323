"""The layers that `in_order` refits, and what the dense network computed there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.pruning.refit.linear_path import Affine, Path
from amc_tf.pruning.refit.refittable import intercept
from amc_tf.pruning.refit.runner import Stop


@dataclasses.dataclass(frozen=True, eq=False)
class Consumer:
    """A layer to refit, and what the dense network computed at the sampled positions.

    Attributes:
        site: the call at which the layer is refitted.
        kernel: name of the weight.
        intercept: weight that absorbs the constant, see `refittable.intercept`.
        path: linear path to the value that is restored.
        affine: what the path computes.
        positions: the sampled positions of the output, int (images, positions).
        targets: the value to restore, float32 (images * positions, outputs).
        later: for each batch and each other call of a shared layer, the dense
            network's inputs and linear outputs, float32. They take the place of
            the pruned network's.
    """

    site: Site
    kernel: str
    intercept: tuple[str, str, np.ndarray, float] | None
    path: Path
    affine: Affine
    positions: np.ndarray
    targets: np.ndarray
    later: Sequence[tuple[np.ndarray, np.ndarray]]

    @property
    def stop(self) -> Stop:
        """Where the refit reads the pruned network."""
        values = (self.site.call.inputs[0], *self.path.others)
        weights = [f"{self.site.name}/{self.kernel}"]
        if self.intercept is not None:
            weights.append("/".join(self.intercept[:2]))
        return Stop(self.site.call, tuple(dict.fromkeys(values)), tuple(weights))


@dataclasses.dataclass(eq=False)
class Gathered:
    """What is gathered for a `Consumer`, a batch at a time; attributes as there."""

    site: Site
    kernel: str
    path: Path
    positions: list[np.ndarray] = dataclasses.field(default_factory=list)
    targets: list[np.ndarray] = dataclasses.field(default_factory=list)
    later: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)

    def consumer(self, graph: ChannelGraph) -> Consumer:
        """Returns the consumer of all batches, which it takes from here."""
        positions, self.positions = np.concatenate(self.positions), []
        targets, self.targets = np.concatenate(self.targets), []
        return Consumer(
            self.site,
            self.kernel,
            intercept(graph, self.site),
            self.path,
            self.path.affine(graph.network),
            positions,
            targets,
            self.later,
        )
