"""The forms that data may have, each read as batches, in one pass after another.

`batches_of` tells the form. Arrays are read by slices and nothing is copied as a whole, so that
data may be larger than memory (`np.memmap`). Everything else in the product reads data through
the classes here.
"""

from __future__ import annotations

import abc
import collections.abc
import itertools
import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.training.arrays import as_arrays, common_length, is_array, is_arrays, rows

_LOG = logging.getLogger(__name__)

# Data that does not know its length is taken as endless after so many samples.
MOST_UNCOUNTED = 2_000_000
# Seconds of reading such data after which the log says that it goes on.
_PATIENCE = 30.0
# Bytes up to which the pipeline of arrays keeps its batches: a small network runs faster than
# they are made.
_KEPT = 64 * 2**20
Element = tuple[Any, Any, Any]


class Batches(abc.ABC):
    """Data as batches `(inputs, labels, sample weights)` of NumPy arrays.

    Inputs and labels keep the user's structure (an array, tuples or dicts of arrays); labels and
    weights are None where there are none. Each iteration is a whole pass.

    Attributes:
        split: what the data is called in messages.
    """

    def __init__(self, split: str, steps: int | None):
        self.split = split
        self._steps = steps

    @property
    def steps(self) -> int | None:
        """Number of batches in a pass; None if only a pass can tell."""
        return self._steps

    @abc.abstractmethod
    def __iter__(self) -> Iterator[Element]:
        """Yields the batches of one pass."""

    def dataset(self, shuffle: np.random.Generator | None = None) -> tf.data.Dataset:
        """Returns a `tf.data.Dataset` of the batches, for `Model.fit` and `evaluate`.

        Args:
            shuffle: draws the order of arrays' samples for each pass; default: their own order.

        Raises:
            AmcError: there are no batches.
        """
        first = [present(element) for element in itertools.islice(self, 2)]
        if not first:
            raise AmcError(f"{self.split} data is empty")

        def spec(*arrays: np.ndarray) -> tf.TensorSpec:
            open_sizes = [
                s[0] if len(set(s)) == 1 else None for s in zip(*map(np.shape, arrays), strict=True)
            ]
            return tf.TensorSpec([None, *open_sizes[1:]], tf.as_dtype(arrays[0].dtype))

        found = tf.data.Dataset.from_generator(
            lambda: map(present, self._ordered(shuffle)),
            output_signature=keras.tree.map_structure(spec, *first),
        )
        if self.steps is not None:
            found = found.apply(tf.data.experimental.assert_cardinality(self.steps))
        return found

    def _ordered(self, shuffle: np.random.Generator | None) -> Iterator[Element]:
        del shuffle  # as Keras, which leaves the order of batches to the data
        return iter(self)


class IndexedBatches(Batches):
    """Batches that can be read in any order.

    Attributes:
        in_memory: whether the user's own object holds the data, so that it is fast to read again.
    """

    in_memory = True

    def __init__(self, split: str, steps: int):
        super().__init__(split, steps)
        self._count = steps

    @property
    def steps(self) -> int:
        """Number of batches in a pass."""
        return self._count

    def __iter__(self) -> Iterator[Element]:
        return map(self.at, range(self.steps))

    @abc.abstractmethod
    def at(self, index: int) -> Element:
        """Returns the batch of an index."""


class ArrayBatches(IndexedBatches):
    """Arrays, in slices of `batch_size` samples.

    Attributes:
        samples: number of samples.
        parts: `(inputs, labels, sample weights)`, whole.
    """

    def __init__(self, split: str, parts: tuple[Any, ...], batch_size: int):
        x, y, weight = (*map(as_arrays, parts), None, None)[:3]
        if weight is not None and keras.tree.is_nested(y) and not keras.tree.is_nested(weight):
            weight = keras.tree.map_structure(lambda _: weight, y)  # as Keras does
        self.parts: Element = (x, y, weight)
        self.samples = common_length(split, self.parts)
        self._batch_size = batch_size
        super().__init__(split, math.ceil(self.samples / batch_size))

    def at(self, index: int) -> Element:
        """See `IndexedBatches`."""
        start = index * self._batch_size
        return self.rows(slice(start, start + self._batch_size))

    def rows(self, chosen: slice | np.ndarray) -> Element:
        """Returns samples by their indices."""
        x, y, weight = (
            None if part is None else keras.tree.map_structure(lambda a: rows(a, chosen), part)
            for part in self.parts
        )
        return x, y, weight

    def first(self, steps: int) -> ArrayBatches:
        """Returns the first batches, without a copy."""
        count = steps * self._batch_size
        parts = keras.tree.map_structure(lambda a: a[:count], present(self.parts))
        return ArrayBatches(self.split, parts, self._batch_size)

    @property
    def bytes(self) -> int:
        """Size of all arrays."""
        arrays = keras.tree.flatten(present(self.parts))
        return sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)

    def dataset(self, shuffle: np.random.Generator | None = None) -> tf.data.Dataset:
        """See `Batches`; small arrays are batched once only."""
        found = super().dataset(shuffle)
        if shuffle is None and self.bytes <= _KEPT:
            return found.cache()
        return found.prefetch(2)

    def _ordered(self, shuffle: np.random.Generator | None) -> Iterator[Element]:
        if shuffle is None:
            yield from self
            return
        order = shuffle.permutation(self.samples)
        for start in range(0, self.samples, self._batch_size):
            yield self.rows(order[start : start + self._batch_size])


class ListedBatches(IndexedBatches):
    """Batches read by index: a `keras.utils.PyDataset` or a list."""

    def __init__(self, split: str, data: Any, steps: int, labelled: bool = True):
        super().__init__(split, steps)
        self.in_memory = isinstance(data, list)
        self._data = data
        self._labelled = labelled

    def at(self, index: int) -> Element:
        """See `IndexedBatches`."""
        return _element(self.split, self._data[index], self._labelled)


class StreamedBatches(Batches):
    """Batches in one order: a `tf.data.Dataset`, a torch `DataLoader`, any other iterable."""

    def __init__(self, split: str, data: Any, steps: int | None, labelled: bool = True):
        super().__init__(split, steps)
        self._data = data
        self._labelled = labelled

    def __iter__(self) -> Iterator[Element]:
        samples, begun, told = 0, time.monotonic(), _PATIENCE
        for batch in itertools.islice(self._data, self.steps):
            element = _element(self.split, batch, self._labelled)
            yield element
            if self.steps is not None:
                continue
            samples += len(keras.tree.flatten(element[0])[0])
            if samples > MOST_UNCOUNTED:
                raise AmcError(
                    f"{self.split} data does not tell its length and gave more than "
                    f"{MOST_UNCOUNTED:,} samples without an end; give {_ending(self.split)}"
                )
            if time.monotonic() - begun > told:
                _LOG.warning(
                    "%s data does not tell its length: %s samples read so far; if it does not "
                    "end by itself, give %s",
                    self.split,
                    f"{samples:,}",
                    _ending(self.split),
                )
                told *= 2


def batches_of(
    split: str,
    data: Any,
    batch_size: int = 128,
    steps: int | None = None,
    labelled: bool = True,
) -> Batches:
    """Returns data of any form as batches.

    Args:
        split: what the data is called in messages.
        data: `(inputs, labels)` or `(inputs, labels, sample weights)` as arrays (NumPy, tensors,
            pandas, SciPy's sparse ones; lists or dicts of them), a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a torch `DataLoader`, a list of batches, or any other
            iterable of batches that can be read again.
        batch_size: number of samples in a batch of arrays.
        steps: number of batches to read; None for all.
        labelled: whether batches must have labels; if not, the whole batch stands as inputs.

    Raises:
        AmcError: the data has no such form, can be read only once, or does not end.
    """
    if isinstance(data, tuple) or not labelled and is_arrays(data):
        parts = data if labelled else (data,)
        if labelled and not 2 <= len(parts) <= 3:
            raise AmcError(
                f"{split} data: expected (x, y) or (x, y, sample_weight), received a tuple of "
                f"{len(parts)}"
            )
        found = ArrayBatches(split, parts, batch_size)
        return found if steps is None else found.first(steps)
    if isinstance(data, keras.utils.PyDataset):
        count = _count(data)
        if count is None and steps is None:
            raise _endless(split)
        least = min(n for n in (count, steps) if n is not None)
        return ListedBatches(split, data, least, labelled)
    if isinstance(data, list) and all(isinstance(batch, (list, tuple, dict)) for batch in data):
        return ListedBatches(split, data, min(len(data), steps or len(data)), labelled)
    if isinstance(data, collections.abc.Iterator):
        raise AmcError(
            f"{split} data is a {type(data).__name__}, which can be read once, but is needed again "
            "and again; make it a tf.data.Dataset (Dataset.from_generator) or a "
            "keras.utils.PyDataset"
        )
    if isinstance(data, tf.data.Dataset):
        cardinality = int(data.cardinality())
        if cardinality == tf.data.INFINITE_CARDINALITY and steps is None:
            raise _endless(split)
        if cardinality >= 0:
            steps = min(cardinality, cardinality if steps is None else steps)
        return StreamedBatches(split, data, steps, labelled)
    if hasattr(data, "__iter__") and not is_array(data) and not isinstance(data, (str, Mapping)):
        return StreamedBatches(split, data, _length(data) if steps is None else steps, labelled)
    if is_arrays(data) and labelled:
        raise _no_pairs(split, data)
    raise AmcError(
        f"{split} data: expected (x, y) arrays, a batched tf.data.Dataset or a "
        f"keras.utils.PyDataset, received {type(data).__name__}"
    )


def _element(split: str, element: Any, labelled: bool) -> Element:
    """Splits a batch into inputs, labels and sample weights."""
    if not labelled:
        return as_arrays(element), None, None
    if not isinstance(element, (tuple, list)) or not 2 <= len(element) <= 3:
        raise _no_pairs(split, element)
    x, y, weight = (*map(as_arrays, element), None)[:3]
    return x, y, weight


def present(element: Element) -> tuple[Any, ...]:
    """Returns the parts that there are: `(inputs, labels)`, with weights or without."""
    return tuple(part for part in element if part is not None)


def _count(data: keras.utils.PyDataset) -> int | None:
    try:
        return data.num_batches
    except NotImplementedError:
        return None


def _length(data: Any) -> int | None:
    """Returns the number of batches of a torch DataLoader; None for what might not know it."""
    return len(data) if hasattr(getattr(data, "dataset", None), "__len__") else None


def _ending(split: str) -> str:
    """Says how data that does not end by itself is given an end."""
    if split not in ("train", "validation", "test"):
        return "data that ends"
    of_fit = {"train": ", or steps_per_epoch in fit", "validation": ", or validation_steps in fit"}
    return f"the number of its batches as Task({split}_steps=...){of_fit.get(split, '')}"


def _endless(split: str) -> AmcError:
    return AmcError(
        f"{split} data repeats without end; leave out repeat(), or give {_ending(split)}"
    )


def _no_pairs(split: str, received: Any) -> AmcError:
    return AmcError(
        f"{split} data: expected data of pairs (inputs, labels), with sample weights or without, "
        f"received {type(received).__name__}"
    )
