"""Ending the scoring of a hopeless plan before all images have been run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from amc_tf.scoring.compared import Compared

# The spread of fewer batches is too uncertain.
_FEWEST_BATCHES = 4


class Rule(Protocol):
    """A rule that tells after each batch whether the rest of the batches can be left out."""

    def __call__(self, running: Callable[[], float], size: int) -> bool:
        """Returns whether the plan is hopeless.

        Args:
            running: function that returns the score of all batches so far.
            size: number of images in the last of them.
        """
        ...


class ByScore:
    """A rule by the score, which is taken as a mean over the images, as most metrics are.

    Args:
        gain: function from a score to where more is better.
        total: see `hopeless`.
        beat: score to beat.
        z: see `hopeless`.
    """

    def __init__(self, gain: Callable[[float], float], total: int, beat: float, z: float):
        self._gain = gain
        self._total = total
        self._beat = gain(beat)
        self._z = z
        self._gains: list[float] = []
        self._sizes: list[int] = []
        self._before = 0.0

    def __call__(self, running: Callable[[], float], size: int) -> bool:
        """See `Rule`."""
        self._sizes.append(size)
        summed = sum(self._sizes) * running()
        self._gains.append(self._gain((summed - self._before) / size))
        self._before = summed
        return hopeless(self._gains, self._sizes, self._total, self._beat, self._z)


class ByDivergence:
    """A rule by the divergence from the dense network's outputs.

    Args:
        compared: the batches that are compared, as they are played.
        beat: divergence to beat.
        z: see `hopeless`.
    """

    def __init__(self, compared: Compared, beat: float, z: float):
        self._compared = compared
        self._beat = beat
        self._z = z

    def __call__(self, running: Callable[[], float], size: int) -> bool:
        """See `Rule`."""
        del running, size
        gains = [-distance for distance in self._compared.distances]
        sizes, total = self._compared.sizes, self._compared.total
        return hopeless(gains, sizes, total, -self._beat, self._z)


def hopeless(
    scores: Sequence[float], sizes: Sequence[int], total: int, beat: float, z: float
) -> bool:
    """Returns whether the mean score of all images is expected to stay below `beat`.

    The batches run so far are taken as a sample of all batches. The standard
    error of their mean comes from their spread: it is large where each batch
    holds one class, as such batches differ widely, and becomes zero at the
    last batch.

    Args:
        scores: mean score of each batch run so far.
        sizes: number of images in each of these batches.
        total: number of images in all batches.
        beat: score to beat.
        z: number of standard errors by which the mean must be below `beat`.
    """
    if len(scores) < _FEWEST_BATCHES:
        return False
    weights = np.asarray(sizes) / np.sum(sizes)
    mean = float(weights @ np.asarray(scores))
    variance = float(weights @ np.square(np.asarray(scores) - mean)) / (len(scores) - 1)
    left = max(0.0, 1 - float(np.sum(sizes)) / total)
    return mean + z * math.sqrt(variance * left) < beat
