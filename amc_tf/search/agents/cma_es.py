"""CMA-ES as a searcher: a strong black-box optimiser that an agent has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cmaes import CMA


class EvolutionSearcher:
    """A `Searcher` that evolves the vector of all preserve ratios.

    It uses the covariance matrix adaptation evolution strategy (Hansen, "The
    CMA evolution strategy: a tutorial", 2016) of the package cmaes. It ignores
    states: an episode is one point in the unit cube.

    Args:
        start: preserve ratios around which the first generation is drawn.
        sigma: standard deviation of the first generation.
        seed: seed of the draws; the same seed proposes the same actions.
    """

    def __init__(self, start: Sequence[float], sigma: float = 0.2, seed: int = 0):
        size = len(start)
        bounds = np.tile([0.0, 1.0], (size, 1))
        self._strategy = CMA(np.clip(start, 0.05, 0.95), sigma, bounds, seed=seed)
        self._told: list[tuple[np.ndarray, float]] = []
        self._point = self._strategy.ask()
        self._step = 0

    def act(self, state: np.ndarray) -> float:
        """Returns the next coordinate of the episode's point; the state is ignored."""
        del state
        self._step += 1
        return float(self._point[self._step - 1])

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Records the reward; after a full generation, updates the strategy."""
        del actions  # how the environment changes a point is part of the function optimised
        self._told.append((self._point, -reward))
        if len(self._told) == self._strategy.population_size:
            self._strategy.tell(self._told)
            self._told = []
        self._point = self._strategy.ask()
        self._step = 0
        return {"generation": float(self._strategy.generation)}
