"""The outputs of networks beside the dense network's, batch by batch as they are scored."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.scoring.batches import Batch
from amc_tf.training.divergence import FARTHEST, Divergence

Played = Iterator[tuple[Batch, list[np.ndarray]]]
# Bytes of the dense network's outputs that are kept; of more, whole batches evenly spread.
MOST_BYTES = 2**28

_LOG = logging.getLogger(__name__)


class DenseOutputs:
    """The dense network's outputs on the validation data.

    Args:
        measure: how far other outputs are from these.
        most: number of bytes that are kept, at most.

    Attributes:
        images: number of images whose outputs are kept; None until the dense network was played,
            and 0 if a single batch of outputs takes more than `most` bytes.
    """

    def __init__(self, measure: Divergence, most: int = MOST_BYTES):
        self._measure = measure
        self._most = most
        self._kept: dict[int, list[np.ndarray]] = {}
        self._logits: list[bool] = []
        self.images: int | None = None

    def of(self, played: Iterable[tuple[Batch, list[np.ndarray]]]) -> Played:
        """Yields what the dense network gives to each batch, and keeps it."""
        kept: dict[int, list[np.ndarray]] = {}
        seen, size, step, fits = 0, 0, 1, True
        for batch, outputs in played:
            seen += len(outputs[0])
            if fits and batch.number % step == 0:
                kept[batch.number] = outputs
                size += _bytes(outputs)
            while size > self._most and len(kept) > 1:
                step *= 2
                kept = {number: held for number, held in kept.items() if number % step == 0}
                size = sum(map(_bytes, kept.values()))
            if size > self._most:  # the first batch alone
                kept, size, fits = {}, 0, False
            yield batch, outputs
        self._kept = kept
        told = [self._measure.logits(outputs) for outputs in kept.values()]
        self._logits = [any(of_batches) for of_batches in zip(*told, strict=True)]
        self.images = sum(len(outputs[0]) for outputs in kept.values())
        if 0 < self.images < seen:
            story.remark(
                _LOG,
                "outputs are compared with the dense network's on %s of %s validation samples, as "
                "those of all take more than %s bytes",
                f"{self.images:,}",
                f"{seen:,}",
                f"{self._most:,}",
            )

    def distance(self, batch: Batch, outputs: Sequence[np.ndarray]) -> float | None:
        """Returns how far outputs are from the dense network's; None where these are not kept.

        Raises:
            AmcError: the batch is not that which the dense network had.
        """
        dense = self._kept.get(batch.number)
        if dense is None:
            return None
        shapes = [array.shape for array in dense], [array.shape for array in outputs]
        if shapes[0] != shapes[1]:
            raise AmcError(
                f"the outputs for batch {batch.number} of the validation data have the shapes "
                f"{shapes[1]}, those of the dense network had {shapes[0]}; let the data give the "
                "same batches each time, or use SearchSettings(reward='err')"
            )
        return min(self._measure.of(outputs, dense, self._logits), FARTHEST)


class Compared:
    """The distances of one network's outputs from the dense network's, as batches are played.

    Args:
        dense: the dense network's outputs.

    Attributes:
        distances: distance of each batch that was compared so far.
        sizes: number of images in each of these.
        total: number of images in all batches that can be compared.
    """

    def __init__(self, dense: DenseOutputs):
        self._dense = dense
        self.distances: list[float] = []
        self.sizes: list[int] = []
        self.total = dense.images or 0

    def of(self, played: Iterable[tuple[Batch, list[np.ndarray]]]) -> Played:
        """Yields what is played, and compares it."""
        for batch, outputs in played:
            distance = self._dense.distance(batch, outputs)
            if distance is not None:
                self.distances.append(distance)
                self.sizes.append(len(outputs[0]))
            yield batch, outputs

    @property
    def divergence(self) -> float | None:
        """The mean distance of the images compared so far; None if there are none.

        Outputs that are infinitely far in one batch are so in the mean.
        """
        if not self.sizes:
            return None
        if max(self.distances) >= FARTHEST:
            return FARTHEST
        return float(np.average(self.distances, weights=self.sizes))


def _bytes(outputs: Sequence[np.ndarray]) -> int:
    return sum(array.nbytes for array in outputs)
