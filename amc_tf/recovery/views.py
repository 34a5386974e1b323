"""Distorted views of images.

A few hundred images are learnt by heart. What the dense network says of any input is known, so that
crops, mirror images and mixtures of two images are as good as new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from amc_tf.pruning.refit.runner import Images

# Least share of an image's area that a crop keeps, and the largest change of its aspect ratio.
_AREA, _ASPECT = 0.35, 4 / 3
# Share of the views that are mixtures.
_MIXED = 0.25
# Least number of views of an epoch, apart from the last batch.
_LEAST_VIEWS = 256
_SMALLEST = 8  # a side of an input that is taken for an image


def steps_of(images: Images, size: int) -> int:
    """Returns the number of batches of an epoch."""
    return len(images) * _passes(images) // size


def views(
    images: Images, size: int, seed: int, epoch: int, distort: bool = True
) -> Iterator[list[np.ndarray]]:
    """Yields the batches of an epoch, one array for each input.

    They follow from the arguments alone, so that a training that goes on after an interruption
    sees what it would have seen. Images that fill no batch wait for another epoch; few images are
    passed over several times in one.

    Args:
        images: the images.
        size: number of views of a batch, not more than there are images.
        seed: a seed.
        epoch: number of the epoch.
        distort: whether images are distorted.
    """
    rng = np.random.default_rng((seed, epoch))
    order = np.concatenate([rng.permutation(len(images)) for _ in range(_passes(images))])
    for start in range(0, len(order) - size + 1, size):
        whole = images.at(order[start : start + size]).part(slice(None))
        yield distorted(whole, rng) if distort else whole


def _passes(images: Images) -> int:
    return math.ceil(_LEAST_VIEWS / len(images))


def distorted(arrays: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Returns a view of each sample: a crop, half of them mirrored, some mixed with another's.

    All images of a sample are cropped and mirrored alike. Where a sample has other inputs, too,
    nothing is mixed.

    Args:
        arrays: for each input images (n, height, width, up to 4 channels), of floats; anything else
            is returned as it is.
        rng: draws the views.
    """
    found = [_are_images(array) for array in arrays]
    if not any(found):
        return list(arrays)
    count = len(arrays[0])
    area = rng.uniform(_AREA, 1, count)
    aspect = np.exp(rng.uniform(-math.log(_ASPECT), math.log(_ASPECT), count))
    height, width = (np.minimum(np.sqrt(s), 1) for s in (area / aspect, area * aspect))
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    mirrored = rng.random(count) < 0.5
    start, end = (np.where(mirrored, *x) for x in ((left + width, left), (left, left + width)))
    boxes = np.stack([top, start, top + height, end], axis=1).astype(np.float32)
    mixed = (rng.random(count) < _MIXED) & all(found)
    share = np.where(mixed, rng.random(count), 1).astype(np.float32).reshape(-1, 1, 1, 1)
    others = rng.permutation(count)

    def view(array: np.ndarray) -> np.ndarray:
        x = array.astype(np.float32, copy=False)
        cropped = tf.image.crop_and_resize(x, boxes, np.arange(count), x.shape[1:3]).numpy()
        return (share * cropped + (1 - share) * cropped[others]).astype(array.dtype)

    return [view(array) if of else array for array, of in zip(arrays, found, strict=True)]


def _are_images(array: np.ndarray) -> bool:
    return (
        array.ndim == 4
        and array.dtype.kind == "f"
        and min(array.shape[1:3]) >= _SMALLEST
        and array.shape[3] <= 4
    )
