"""The layers that `in_order` refits, and what the dense network computed there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.pruning.refit.kept_rows import InMemory, Keeper, ReadRows
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
        targets: reads the value to restore, float32 (images * positions, outputs).
        later: None, or for the other calls of a shared layer in all batches, what reads the
            dense network's inputs and linear outputs, float32. They take the place of the pruned
            network's.
    """

    site: Site
    kernel: str
    intercept: tuple[str, str, np.ndarray, float] | None
    path: Path
    affine: Affine
    positions: np.ndarray
    targets: ReadRows
    later: tuple[ReadRows, ReadRows] | None

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
    """What is gathered for a `Consumer`, a batch at a time; attributes as there.

    Attributes:
        keeper: keeps the rows.
    """

    site: Site
    kernel: str
    path: Path
    keeper: Keeper
    positions: list[np.ndarray] = dataclasses.field(default_factory=list)
    _targets: list[Any] = dataclasses.field(default_factory=list)
    _later: list[tuple[Any, Any]] = dataclasses.field(default_factory=list)

    def add(self, targets: np.ndarray) -> None:
        """Keeps the targets of a batch."""
        self._targets.append(self.keeper.keep(targets))

    def add_later(self, inputs: np.ndarray, outputs: np.ndarray) -> None:
        """Keeps what another call of a shared layer read and computed in a batch."""
        self._later.append((self.keeper.keep(inputs), self.keeper.keep(outputs)))

    def consumer(self, graph: ChannelGraph) -> Consumer:
        """Returns the consumer of all batches, which it takes from here."""
        positions, self.positions = np.concatenate(self.positions), []
        targets, self._targets = self.keeper.joined(self._targets), []
        later = None
        if self._later:
            inputs, outputs = zip(*self._later, strict=True)
            later = self.keeper.joined(inputs), self.keeper.joined(outputs)
            self._later = []
        # TensorFlow keeps the functions that gather, and they this, until its session is cleared.
        self.keeper = InMemory()
        return Consumer(
            self.site,
            self.kernel,
            intercept(graph, self.site),
            self.path,
            self.path.affine(graph.network),
            positions,
            targets,
            later,
        )
