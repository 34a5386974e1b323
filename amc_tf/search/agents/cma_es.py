"""CMA-ES as a searcher: the strong black-box optimiser that an agent has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cmaes import CMA


class EvolutionSearcher:
    """Evolves the vector of all preserve ratios (a `Searcher`).

    The covariance matrix adaptation evolution strategy (Hansen, "The CMA
    evolution strategy: a tutorial", 2016), of the package cmaes. It knows
    nothing of states: an episode is one point in the unit cube.

    Args:
        start: preserve ratios around which the first generation is drawn.
        sigma: standard deviation of the first generation.
        seed: of its draws; the same seed proposes the same actions.
    """

    def __init__(self, start: Sequence[float], sigma: float = 0.2, seed: int = 0):
        size = len(start)
        bounds = np.tile([0.0, 1.0], (size, 1))
        self._strategy = CMA(np.clip(start, 0.05, 0.95), sigma, bounds, seed=seed)
        self._told: list[tuple[np.ndarray, float]] = []
        self._point = self._strategy.ask()
        self._step = 0

    def act(self, state: np.ndarray) -> float:
        """The next coordinate of the episode's point, whatever the state."""
        del state
        self._step += 1
        return float(self._point[self._step - 1])

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Tells the reward; a full generation moves the strategy."""
        del actions  # what the environment made of a point is part of what is optimised
        self._told.append((self._point, -reward))
        if len(self._told) == self._strategy.population_size:
            self._strategy.tell(self._told)
            self._told = []
        self._point = self._strategy.ask()
        self._step = 0
        return {"generation": float(self._strategy.generation)}
