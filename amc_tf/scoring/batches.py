"""The user's data as arrays, in the user's batches."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from amc_tf import story
from amc_tf.training.data import Data, inputs_of
from amc_tf.training.forms import ArrayBatches, IndexedBatches, batches_of, present

_LOG = logging.getLogger(__name__)

# A sample is known by three pieces of this many numbers of each of its inputs.
_PIECE = 1024


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
        self._first = batch_size

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Batch] = []
        size = images = 0
        for number, (x, y, weight) in enumerate(self._source):
            batch = self._batch(number, x, y, weight)
            images += len(batch.inputs[0])
            if number == 0:
                self._first = images
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
        story.remark(
            _LOG,
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

    def part(self, images: int) -> Part | None:
        """Chooses some of the samples by what they hold, the same whatever their order.

        To be asked after the first pass.

        Args:
            images: number of samples.

        Returns:
            The samples, in batches of the size of the first; None if there are no more than
            these, if a later pass may give others, or if samples of different batches differ in
            their shapes.
        """
        if not self.images or self.images <= images or not self.repeats:
            return None
        forms, keys = set(), []
        for batch in self:
            arrays = keras.tree.flatten(present(batch[:3]))
            forms.add(tuple((array.shape[1:], str(array.dtype)) for array in arrays))
            keys.extend(_keys(batch.inputs))
        if len(forms) > 1:
            return None
        chosen = sorted(range(len(keys)), key=keys.__getitem__)[:images]
        source, kept = self._source, self._kept
        if isinstance(source, ArrayBatches):
            return Part(lambda at: self._batch(0, *source.rows(at)), chosen, self._first)
        held = list(source) if kept is None else [batch[:3] for batch in kept]
        ends = np.cumsum([len(keras.tree.flatten(x)[0]) for x, _, _ in held])

        def rows(at: np.ndarray) -> Batch:
            numbers = np.searchsorted(ends, at, side="right")
            samples = [
                keras.tree.map_structure(lambda a, i=i - ends[n]: a[i], present(held[n]))
                for n, i in zip(numbers, at, strict=True)
            ]
            stacked = keras.tree.map_structure(lambda *each: np.stack(each), *samples)
            return self._batch(0, *stacked, *(None,) * (3 - len(stacked)))

        return Part(rows, chosen, self._first)

    def _batch(self, number: int, x: Any, y: Any, weight: Any) -> Batch:
        return Batch(inputs_of(x, self._model), y, weight, number)


class Part:
    """Some of the samples, in batches in a random order; see `Batches.part`.

    Attributes:
        images: number of samples.
        repeats: see `Batches`.
    """

    repeats = True

    def __init__(self, rows: Callable[[np.ndarray], Batch], chosen: Sequence[int], size: int):
        self._rows = rows
        self._groups = [np.sort(chosen[i : i + size]) for i in range(0, len(chosen), size)]
        self.images = len(chosen)

    def __iter__(self) -> Iterator[Batch]:
        for number, group in enumerate(self._groups):
            yield self._rows(group)._replace(number=number)

    def shuffled(self) -> Iterable[Batch]:
        """Returns the batches, whose order is random as it is."""
        return self


def _keys(inputs: Sequence[np.ndarray]) -> list[bytes]:
    """Returns a number for each sample that follows from what it holds, as random as a hash."""
    rows = [array.reshape(len(array), -1) for array in inputs]
    pieces = []
    for row in rows:
        starts = [max(0, row.shape[1] * quarter // 4 - _PIECE // 2) for quarter in (1, 2, 3)]
        whole = row.shape[1] <= 3 * _PIECE
        parts = [row] if whole else [row[:, start : start + _PIECE] for start in starts]
        pieces.extend(np.ascontiguousarray(part) for part in parts)
    return [
        hashlib.blake2b(b"".join(piece[n].tobytes() for piece in pieces), digest_size=8).digest()
        for n in range(len(rows[0]))
    ]


def order(batches: int) -> np.ndarray:
    """Draws the order in which batches are run, the same each time.

    In data sorted by class, the first batches say nothing about the others.
    """
    return np.random.default_rng(0).permutation(batches)
