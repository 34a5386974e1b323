"""Ending the scoring of a hopeless plan before all images have been run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# The spread of fewer batches is too uncertain.
_FEWEST_BATCHES = 4


class Estimate(float):
    """A score of part of the images, of a plan that is hopeless against the one to beat."""


def order(batches: int) -> np.ndarray:
    """Draws the order in which batches are run, the same each time.

    In data sorted by class, the first batches say nothing about the others.
    """
    return np.random.default_rng(0).permutation(batches)


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
