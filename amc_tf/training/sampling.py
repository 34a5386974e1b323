"""A few samples of data, drawn over all of it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.training.data import evenly_spaced
from amc_tf.training.forms import ArrayBatches, Batches, Element, present


def drawn(batches: Batches, count: int) -> tuple[Element, int]:
    """Draws samples over a whole pass, as data may be sorted by class.

    Of arrays, evenly spaced samples are taken. Of other forms, each sample gets a random number,
    by its place, and those with the smallest are kept. So the same data gives the same draw in
    whatever batches, and no more than `count` samples and a batch are in memory.

    Args:
        batches: the data.
        count: largest number of samples.

    Returns:
        `(inputs, labels, sample weights)` of the samples, in the order of the data; and the number
        of samples in the data.

    Raises:
        AmcError: the data is empty, or the samples drawn differ in shape.
    """
    if isinstance(batches, ArrayBatches):
        if batches.samples == 0:
            raise AmcError(f"{batches.split} data is empty")
        return batches.rows(evenly_spaced(batches.samples, count)), batches.samples
    rng = np.random.default_rng(0)
    numbers = np.empty(0)  # of the kept samples, with their places and arrays
    places = np.empty(0, int)
    kept: dict[int, list[np.ndarray]] = {}
    total, structure = 0, None
    for element in batches:
        structure = present(element)
        leaves = keras.tree.flatten(structure)
        here = total + np.arange(len(leaves[0]))
        total += len(here)
        numbers = np.concatenate([numbers, rng.random(len(here))])
        places = np.concatenate([places, here])
        smallest = np.argsort(numbers, kind="stable")[:count]
        numbers, places = numbers[smallest], places[smallest]
        chosen = set(places.tolist())
        kept = {place: arrays for place, arrays in kept.items() if place in chosen}
        for place in chosen - kept.keys():
            # Copied, as a view would keep the whole batch.
            kept[place] = [np.array(leaf[place - here[0]]) for leaf in leaves]
    if total == 0:
        raise AmcError(f"{batches.split} data is empty")
    samples = [kept[place] for place in sorted(kept)]
    return _stacked(batches.split, structure, samples), total


def _stacked(split: str, structure: Any, samples: list[list[np.ndarray]]) -> Element:
    try:
        leaves = [np.stack(arrays) for arrays in zip(*samples, strict=True)]
    except ValueError:
        raise AmcError(
            f"{split} data: {len(samples)} samples were drawn, which differ in shape; give inputs "
            "of one shape as Task(calibration=...)"
        ) from None
    x, y, weight = (*keras.tree.pack_sequence_as(structure, leaves), None, None)[:3]
    return x, y, weight
