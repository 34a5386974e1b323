"""The user's data as arrays, in the user's batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

from amc_tf.scoring.early_stopping import order
from amc_tf.training.data import Data, inputs_of

_MOST_IN_MEMORY = 2**31  # bytes of a dataset's batches


class Batch(NamedTuple):
    """A batch: inputs in the order of the model's inputs, labels, sample weights."""

    inputs: list[np.ndarray]
    labels: Any
    sample_weight: Any


class Batches:
    """The user's data as arrays, in the user's batches.

    A dataset is read once and kept if it is not too large, because decoding it
    may cost more than running the network.

    Attributes:
        images: number of images; None until the data has been read once.
    """

    def __init__(self, data: Data, batch_size: int, model: keras.Model):
        self._data = data
        self._batch_size = batch_size
        self._model = model
        self._kept: list[Batch] | None = None
        self.images: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Batch] | None = []
        size = images = 0
        for element in self._elements():
            x, y, weight = keras.utils.unpack_x_y_sample_weight(element)
            batch = Batch(inputs_of(x, self._model), y, weight)
            size += sum(a.nbytes for a in keras.tree.flatten(element))
            if size > _MOST_IN_MEMORY:
                kept = None
            images += len(batch.inputs[0])
            if kept is not None:
                kept.append(batch)
            yield batch
        self._kept, self.images = kept, images

    def shuffled(self) -> Iterable[Batch]:
        """Returns the batches, in a random but fixed order if they are kept."""
        if self._kept is None:
            return self
        return [self._kept[i] for i in order(len(self._kept))]

    def _elements(self) -> Iterator[Any]:
        if not isinstance(self._data, tuple):
            for element in self._data:
                yield keras.tree.map_structure(np.asarray, element)
            return
        x, *rest = self._data
        rest = [np.asarray(a) if isinstance(a, list) else a for a in rest]
        arrays = keras.tree.map_structure(np.asarray, (x, *rest))
        for start in range(0, len(keras.tree.flatten(x)[0]), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield keras.tree.map_structure(lambda a, part=part: a[part], arrays)
