"""Hand-crafted policies of the paper, as opponents in the same environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from amc_tf.agent import Searcher

# Relative preserve ratios at the first and the last group, linear in between
# (AMC, table 2: "shallow" prunes the first layers most, "deep" the last).
PROFILES: Mapping[str, tuple[float, float]] = {
    "uniform": (1.0, 1.0),
    "shallow": (0.5, 1.0),
    "deep": (1.0, 0.5),
}


def profile(name: str, groups: int) -> np.ndarray:
    """Relative preserve ratios of a hand-crafted policy, float64 (groups,)."""
    return np.linspace(*PROFILES[name], groups)


class FixedSearcher:
    """Proposes the same given actions in every episode (`amc_tf.agent.Searcher`)."""

    def __init__(self, actions: Sequence[float]):
        self._actions = actions
        self._step = 0

    def act(self, state: np.ndarray) -> float:
        """The next of the given actions, whatever the state."""
        self._step += 1
        return self._actions[self._step - 1]

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Learns nothing; begins again."""
        self._step = 0
        return {}


class GuidedSearcher:
    """A searcher whose first episodes follow demonstrations.

    The agent sees the demonstrated actions as executed, so that its replay
    begins with what an engineer would have tried first, and its best plan is
    never worse than theirs.

    Args:
        searcher: the one that learns.
        demonstrations: actions of each of the first episodes.
    """

    def __init__(self, searcher: Searcher, demonstrations: Sequence[Sequence[float]]):
        self._searcher = searcher
        self._demonstrations = demonstrations
        self._episode = self._step = 0

    def act(self, state: np.ndarray) -> float:
        """The demonstrated action, or the searcher's own once there are no more."""
        proposed = self._searcher.act(state)
        self._step += 1
        if self._episode < len(self._demonstrations):
            return self._demonstrations[self._episode][self._step - 1]
        return proposed

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Passes the executed actions and the reward on."""
        self._episode, self._step = self._episode + 1, 0
        return self._searcher.finish(actions, reward)
