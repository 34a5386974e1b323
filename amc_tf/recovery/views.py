"""Distorted views of images.

A few hundred images are learnt by heart. What the dense network says of any input is known, so that
crops, mirror images and mixtures of two images are as good as new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from amc_tf.pruning.refit.runner import Images

# Least share of an image's area that a crop keeps, and the largest change of its aspect ratio.
_AREA, _ASPECT = 0.35, 4 / 3
# Share of the views that are mixtures.
_MIXED = 0.25
_SMALLEST = 8  # a side of an input that is taken for an image


def views(images: Images, size: int, seed: int, epoch: int) -> Iterator[list[np.ndarray]]:
    """Yields the batches of an epoch, one array for each input.

    They follow from the arguments alone, so that a training that goes on after an interruption
    sees what it would have seen. Images that fill no batch wait for another epoch.

    Args:
        images: the images.
        size: number of views of a batch, not more than there are images.
        seed: a seed.
        epoch: number of the epoch.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(images))
    for start in range(0, len(order) - size + 1, size):
        picked = order[start : start + size]
        arrays = Images([np.asarray(a)[picked] for a in images.arrays], images.dtypes)
        yield [distorted(array, rng) for array in arrays.part(slice(None))]


def distorted(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns a view of each image: a crop, half of them mirrored, some mixed with another's.

    Args:
        array: images (n, height, width, up to 4 channels), of floats; anything else is returned
            as it is.
        rng: draws the views.
    """
    if not _are_images(array):
        return array
    count = len(array)
    area = rng.uniform(_AREA, 1, count)
    aspect = np.exp(rng.uniform(-math.log(_ASPECT), math.log(_ASPECT), count))
    height, width = (np.minimum(np.sqrt(s), 1) for s in (area / aspect, area * aspect))
    top, left = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    mirrored = rng.random(count) < 0.5
    start, end = (np.where(mirrored, *x) for x in ((left + width, left), (left, left + width)))
    boxes = np.stack([top, start, top + height, end], axis=1).astype(np.float32)
    cropped = tf.image.crop_and_resize(array, boxes, np.arange(count), array.shape[1:3]).numpy()
    share = np.where(rng.random(count) < _MIXED, rng.random(count), 1).astype(array.dtype)
    share = share.reshape(-1, 1, 1, 1)
    return share * cropped + (1 - share) * cropped[rng.permutation(count)]


def _are_images(array: np.ndarray) -> bool:
    return (
        array.ndim == 4
        and array.dtype.kind == "f"
        and min(array.shape[1:3]) >= _SMALLEST
        and array.shape[3] <= 4
    )
