"""The paper's hand-crafted policies, and a searcher that proposes given plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

# Relative preserve ratios at the first and the last group, linear in between
# (AMC, table 2: "shallow" prunes the first layers most, "deep" the last).
PROFILES: Mapping[str, tuple[float, float]] = {
    "uniform": (1.0, 1.0),
    "shallow": (0.5, 1.0),
    "deep": (1.0, 0.5),
}


def profile(name: str, groups: int) -> np.ndarray:
    """Returns the relative preserve ratios of a hand-crafted policy, float64 (groups,)."""
    return np.linspace(*PROFILES[name], groups)


class FixedSearcher:
    """A `Searcher` that proposes given plans, one after another.

    Args:
        plans: actions of each episode; after the last plan, the first one follows again.
    """

    def __init__(self, plans: Sequence[Sequence[float]]):
        self._plans = plans
        self._episode = self._step = 0

    def act(self, state: np.ndarray) -> float:
        """Returns the next of the given actions; the state is ignored."""
        self._step += 1
        return self._plans[self._episode % len(self._plans)][self._step - 1]

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Learns nothing and goes on to the next plan."""
        self._episode, self._step = self._episode + 1, 0
        return {}
