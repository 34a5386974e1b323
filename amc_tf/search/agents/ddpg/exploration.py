"""Exploration: a normal distribution around the actor's action, truncated to [0, 1]."""

import numpy as np


def truncated_normal(random: np.random.Generator, mean: float, sigma: float) -> float:
    """Draws from the normal distribution of `mean` and `sigma`, truncated to [0, 1].

    Truncation, not clipping: no probability piles up at 0 and 1 (paper, section 3).

    Args:
        random: source of the random numbers.
        mean: mean of the untruncated distribution, in [0, 1].
        sigma: standard deviation of the untruncated distribution, in (0, 1].

    Returns:
        The action, in [0, 1].

    Raises:
        ValueError: if mean or sigma is out of range.
    """
    if not (0.0 <= mean <= 1.0 and 0.0 < sigma <= 1.0):
        raise ValueError(
            f"Expected a mean in [0, 1] and a sigma in (0, 1], received {mean} and {sigma}."
        )
    # Rejection is exact and cheap here: as the mean is in [0, 1], a draw is kept with probability
    # 0.34 or more (mean 0, sigma 1). The inverse of the distribution would lose its tails.
    while True:
        action = random.normal(mean, sigma)
        if 0.0 <= action <= 1.0:
            return float(action)
