"""The user's data as arrays, in the user's batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from amc_tf.training.data import Data, inputs_of
from amc_tf.training.forms import IndexedBatches, batches_of

_LOG = logging.getLogger(__name__)


class Batch(NamedTuple):
    """A batch: inputs in the order of the model's inputs, labels, sample weights.

    `number` is its place in the data's own order.
    """

    inputs: list[np.ndarray]
    labels: Any
    sample_weight: Any
    number: int = 0


class Batches:
    """The user's validation data as arrays, in the user's batches.

    What is not in memory is read once and kept, as decoding it may cost more than running the
    network, unless it is larger than `most_kept` bytes. This is estimated from the first batch
    if the number of batches is known.

    Attributes:
        images: number of images; None until the data has been read once.
    """

    def __init__(self, data: Data, batch_size: int, model: keras.Model, most_kept: int):
        self._source = batches_of("validation", data, batch_size)
        self._model = model
        self._most_kept = most_kept
        self._kept: list[Batch] | None = None
        in_memory = isinstance(self._source, IndexedBatches) and self._source.in_memory
        self._to_keep = not in_memory
        self.images: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Batch] = []
        size = images = 0
        for number, (x, y, weight) in enumerate(self._source):
            batch = self._batch(number, x, y, weight)
            images += len(batch.inputs[0])
            if self._to_keep:
                arrays = keras.tree.flatten([a for a in (x, y, weight) if a is not None])
                size += sum(a.nbytes for a in arrays)
                kept.append(batch)
                self._to_keep = self._fits(size, len(kept))
                if not self._to_keep:
                    kept.clear()
            yield batch
        if self._to_keep:
            self._kept = kept
        self.images = images

    def _fits(self, size: int, batches: int) -> bool:
        expected = size
        if batches == 1 and self._source.steps is not None:
            expected = size * self._source.steps
        if expected <= self._most_kept:
            return True
        _LOG.info(
            "validation data is read anew for each plan, as its batches take more than "
            "Task(keep_bytes=%s)",
            f"{self._most_kept:,}",
        )
        return False

    @property
    def repeats(self) -> bool:
        """Whether each pass gives the same batches; it is known after the first pass.

        What the user's code makes anew for each pass may be another each time.
        """
        in_memory = isinstance(self._source, IndexedBatches) and self._source.in_memory
        return self._kept is not None or in_memory

    def shuffled(self) -> Iterable[Batch] | None:
        """Returns the batches in a random but fixed order; None if they come in one order only."""
        if self._kept is not None:
            return [self._kept[i] for i in order(len(self._kept))]
        if not isinstance(self._source, IndexedBatches):
            return None
        source = self._source
        return (self._batch(i, *source.at(i)) for i in order(source.steps).tolist())

    def _batch(self, number: int, x: Any, y: Any, weight: Any) -> Batch:
        return Batch(inputs_of(x, self._model), y, weight, number)


def order(batches: int) -> np.ndarray:
    """Draws the order in which batches are run, the same each time.

    In data sorted by class, the first batches say nothing about the others.
    """
    return np.random.default_rng(0).permutation(batches)
