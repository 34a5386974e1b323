"""The user's data as arrays, in the user's batches."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
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
    """

    def __init__(self, data: Data, batch_size: int, model: keras.Model, most_kept: int):
        self._source = batches_of("validation", data, batch_size)
        self._model = model
        self._most_kept = most_kept
        self._kept: list[Batch] | None = None
        in_memory = isinstance(self._source, IndexedBatches) and self._source.in_memory
        self._to_keep = not in_memory
        self._sizes: list[int] = []

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Batch] = []
        sizes: list[int] = []
        size = 0
        for number, (x, y, weight) in enumerate(self._source):
            batch = self._batch(number, x, y, weight)
            sizes.append(len(batch.inputs[0]))
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
        self._sizes = sizes

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

    def images(self, part: Collection[int] | None = None) -> int:
        """Returns the number of images in some batches or all; 0 until they have been read once."""
        numbers = range(len(self._sizes)) if part is None else part
        return sum(self._sizes[number] for number in numbers)

    def part(self, images: int, preferred: Collection[int]) -> frozenset[int] | None:
        """Returns the numbers of as many batches as hold a number of images, drawn at random.

        Args:
            images: the number of images.
            preferred: numbers of batches that are drawn before all others.

        Returns:
            The same each time; None where this takes all batches, or they come in one order only.
        """
        if self.images() <= images or self.shuffled() is None:
            return None
        drawn = sorted(order(len(self._sizes)).tolist(), key=lambda n: n not in preferred)
        held = np.cumsum([self._sizes[number] for number in drawn])
        part = drawn[: int(np.searchsorted(held, images)) + 1]
        return frozenset(part) if len(part) < len(drawn) else None

    def shuffled(self, part: Collection[int] | None = None) -> Iterable[Batch] | None:
        """Returns the batches in a random but fixed order; None if they come in one order only.

        Args:
            part: numbers of the batches that are wanted; None for all.
        """
        if self._kept is not None:
            kept = self._kept
            return [kept[n] for n in order(len(kept)).tolist() if part is None or n in part]
        if not isinstance(self._source, IndexedBatches):
            return None
        source = self._source
        numbers = order(source.steps).tolist()
        return (self._batch(n, *source.at(n)) for n in numbers if part is None or n in part)

    def _batch(self, number: int, x: Any, y: Any, weight: Any) -> Batch:
        return Batch(inputs_of(x, self._model), y, weight, number)


def order(batches: int) -> np.ndarray:
    """Draws the order in which batches are run, the same each time.

    In data sorted by class, the first batches say nothing about the others.
    """
    return np.random.default_rng(0).permutation(batches)
