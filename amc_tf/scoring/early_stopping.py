"""Ending the scoring of a hopeless plan before all images have been run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# A spread of fewer batches tells too little of itself.
_FEWEST_BATCHES = 4


def order(batches: int) -> np.ndarray:
    """In which batches are run: those of data sorted by class tell nothing of one another."""
    return np.random.default_rng(0).permutation(batches)


def hopeless(
    scores: Sequence[float], sizes: Sequence[int], total: int, beat: float, z: float
) -> bool:
    """Whether the mean score of all images will stay below `beat`.

    The batches run so far are taken as a sample of all batches: the standard
    error of their mean comes from their spread, so that batches of one class
    each, which differ widely, count for as little as they tell, and shrinks to
    nothing at the last batch.

    Args:
        scores: mean score of each batch run so far.
        sizes: images in each.
        total: images in all batches.
        beat: score that counts as success.
        z: standard errors by which the mean must be below it.

    Returns:
        True if running the rest is not worth it.
    """
    if len(scores) < _FEWEST_BATCHES:
        return False
    weights = np.asarray(sizes) / np.sum(sizes)
    mean = float(weights @ np.asarray(scores))
    variance = float(weights @ np.square(np.asarray(scores) - mean)) / (len(scores) - 1)
    left = max(0.0, 1 - float(np.sum(sizes)) / total)
    return mean + z * math.sqrt(variance * left) < beat
