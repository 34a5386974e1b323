"""95 % intervals of accuracies."""

from __future__ import annotations

import numpy as np


def interval(accuracy: float, count: int) -> list[float]:
    """Computes Wilson's 95 % interval of an accuracy over `count` images."""
    z = 1.96
    centre = (accuracy + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = accuracy * (1 - accuracy) / count + (z / (2 * count)) ** 2
    half = z * spread**0.5 / (1 + z**2 / count)
    return [round(centre - half, 4), round(centre + half, 4)]


def difference(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Computes mean and 95 % interval of the difference of two accuracies on the same images."""
    gap = ours.astype(float) - theirs
    half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5
    return [round(float(v), 4) for v in (gap.mean(), gap.mean() - half, gap.mean() + half)]
