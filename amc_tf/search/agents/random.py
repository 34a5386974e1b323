"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class RandomSearcher:
    """A `Searcher` that draws actions uniformly in [0, 1).

    It is the baseline that a learning searcher has to beat at equal cost.

    Args:
        seed: seed of the draws; the same seed proposes the same actions.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def act(self, state: np.ndarray) -> float:
        """Returns a uniform draw; the state (float32 [num_features]) is ignored."""
        del state
        return float(self._random.random())

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Learns nothing and reports no diagnostics."""
        del actions, reward
        return {}
