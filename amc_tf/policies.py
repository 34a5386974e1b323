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
    """A searcher with demonstrations, and with trials around the best plan so far.

    The first episodes follow the demonstrations: the replay begins with what
    an engineer would have tried, and the best plan is never worse than theirs.
    Later, every other episode perturbs the best actions seen so far, instead of
    asking an actor that soon proposes one plan over and over. DDPG learns from
    either kind, because it learns off policy.

    Args:
        searcher: the one that learns.
        demonstrations: actions of each of the first episodes.
        elite_from: the episode from which on every other one is a trial around
            the best; None for never.
        seed: of these trials.
    """

    # Standard deviations of a trial, one drawn for each: no single scale fits a whole search.
    SCALES = (0.05, 0.1, 0.2)

    def __init__(
        self,
        searcher: Searcher,
        demonstrations: Sequence[Sequence[float]] = (),
        elite_from: int | None = None,
        seed: int = 0,
    ):
        self._searcher = searcher
        self._demonstrations = demonstrations
        self._elite_from = elite_from
        self._rng = np.random.default_rng(seed)
        self._best: tuple[float, list[float]] | None = None
        self._episode = self._step = 0
        self._plan: Sequence[float] | None = None

    def act(self, state: np.ndarray) -> float:
        """The next action of the episode's plan, or the searcher's own."""
        proposed = self._searcher.act(state)
        if self._step == 0:
            self._plan = self._planned()
        self._step += 1
        return proposed if self._plan is None else self._plan[self._step - 1]

    def _planned(self) -> Sequence[float] | None:
        if self._episode < len(self._demonstrations):
            return self._demonstrations[self._episode]
        if self._elite_from is None or self._best is None:
            return None
        late = self._episode - self._elite_from
        if late < 0 or late % 2:
            return None
        scale = self._rng.choice(self.SCALES)
        best = self._best[1]
        return np.clip(best + scale * self._rng.normal(size=len(best)), 0, 1).tolist()

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Passes the executed actions and the reward on."""
        if self._best is None or reward > self._best[0]:
            self._best = reward, list(actions)
        self._episode, self._step = self._episode + 1, 0
        return self._searcher.finish(actions, reward)
