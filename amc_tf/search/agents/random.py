"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class RandomSearcher:
    """Uniform actions in [0, 1): the comparison any learning searcher has to win at equal cost.

    Args:
        seed: of the random numbers; the same seed proposes the same actions.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def act(self, state: np.ndarray) -> float:
        """Returns a uniform draw; the state (float32 [num_features]) is not looked at."""
        del state
        return float(self._random.random())

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Learns nothing, so there is nothing to report."""
        del actions, reward
        return {}
