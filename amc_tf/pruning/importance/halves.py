"""Statistics of the dense network, gathered once for all that is told from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.pruning.refit.dense import Reconstruction, gather_parts


@dataclasses.dataclass(frozen=True, eq=False)
class Halves:
    """Statistics on each half of some images, from one pass over them when they are first used.

    What is fitted on one half is judged on the other.

    Attributes:
        graph: the analysed model.
        images: one array (images, ...) for each model input, two images at least; unlabelled.
        seed: seed of the sampled positions.

    Raises:
        AmcError: there are fewer than two images.
    """

    graph: ChannelGraph
    images: Sequence[np.ndarray]
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.images[0]) < 2:
            raise AmcError(
                f"expected at least two calibration samples, received {len(self.images[0])}; give "
                "more as Task(calibration=...), or raise Task(calibration_size=...)"
            )

    @functools.cached_property
    def parts(self) -> tuple[Reconstruction, Reconstruction]:
        """Those of the even images, and those of the odd ones.

        Raises:
            AmcError: see `amc_tf.pruning.refit.dense.gather`.
        """
        # Each half has as many rows as a gathering of its own would have.
        even, odd = gather_parts(
            self.graph, self.images, 2, rows=16384, rows_per_feature=16, seed=self.seed
        )
        return even, odd

    @functools.cached_property
    def whole(self) -> Reconstruction:
        """Those of all images. Raises: as `parts`."""
        even, odd = self.parts
        consumers = tuple(
            dataclasses.replace(a, statistics=a.statistics.joined(b.statistics))
            for a, b in zip(even.consumers, odd.consumers, strict=True)
        )
        return dataclasses.replace(even, consumers=consumers)
