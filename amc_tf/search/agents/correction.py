"""A searcher that corrects a plan which is good already.

What the groups lose by the closed-form errors of their refits gives a good plan before the first
episode (see `amc_tf.search.agents.knapsack`). An agent that had to find it anew would spend most of
a short search on that. So its action is a factor instead: the middle of its range leaves the plan's
ratio as it is, and the ends shrink or raise it by the same factor. An untrained actor, whose
actions lie in the middle, proposes the plan itself, and exploration stays near it.

Before its first own episode, the agent plays imagined ones, whose reward is what the losses say, on
the scale of the rewards that are known. So its critic knows the price of a channel from the start,
and real episodes only have to correct it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from amc_tf.search.agents.base import Searcher
from amc_tf.search.env.base import DecisionEnv

# Features that are added to a state: the ratio that is corrected, and the group's loss at these
# shares of its channels, the square root relative to the largest of all groups.
_SHARES = (0.75, 0.5, 0.25)
NUM_KNOWN = 1 + len(_SHARES)


class CorrectingSearcher:
    """A `Searcher` whose actions are corrections of a plan.

    Args:
        searcher: searcher that proposes actions in [0, 1], 0.5 for no correction. Its states have
            `NUM_KNOWN` more features.
        env: the environment of the episodes.
        losses: loss of each allowed count of each decision, as `env.choices`.
        plan: preserve ratios that are corrected.
        demonstrations: number of first episodes whose actions others choose. The best of them is
            corrected from then on, in place of `plan`.
        imagined: number of imagined episodes after them.
        factor: largest factor by which a ratio is raised or shrunk, above 1.
    """

    def __init__(
        self,
        searcher: Searcher,
        env: DecisionEnv,
        losses: Sequence[np.ndarray],
        plan: Sequence[float],
        demonstrations: int = 0,
        imagined: int = 0,
        factor: float = 1.25,
    ):
        self._searcher = searcher
        self._env = copy.copy(env)  # imagined episodes do not disturb the real one
        self._losses = losses
        self._plan = np.asarray(plan, float)
        self._demonstrations = demonstrations
        self._imagined = imagined
        self._span = float(np.log(factor))
        largest = max(float(np.max(loss)) for loss in losses)
        self._known = [
            np.sqrt(np.clip(lost / max(largest, np.finfo(float).tiny), 0, 1))
            for lost in (
                np.interp([share * dense for share in _SHARES], choices, loss)
                for dense, choices, loss in zip(env.problem.dense, env.choices, losses, strict=True)
            )
        ]
        self._states: list[np.ndarray] = []
        self._played: list[tuple[list[np.ndarray], Sequence[float], float]] = []

    def act(self, state: np.ndarray) -> float:
        """Returns a ratio of the plan, corrected."""
        self._states.append(state)
        if self._demonstrations:
            return 1.0
        return self._ratio(len(self._states) - 1, self._asked(len(self._states) - 1, state))

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Passes the corrections to the searcher, after the demonstrations those of all of them."""
        states, self._states = self._states, []
        if not self._demonstrations:
            return self._searcher.finish(self._corrections(actions), reward)
        self._played.append((states, actions, reward))
        if len(self._played) < self._demonstrations:
            return {}
        self._demonstrations = 0
        self._plan = np.asarray(max(self._played, key=lambda played: played[2])[1], float)
        told: dict[str, float] = {}
        for states, actions, reward in self._played:
            for t, state in enumerate(states):
                self._asked(t, state)
            told = self._searcher.finish(self._corrections(actions), reward)
        self._imagine()
        return told

    def _asked(self, t: int, state: np.ndarray) -> float:
        known = np.array([*state, self._plan[t], *self._known[t]], np.float32)
        return self._searcher.act(known)

    def _ratio(self, t: int, action: float) -> float:
        return float(np.clip(self._plan[t] * np.exp(self._span * (2 * action - 1)), 0, 1))

    def _corrections(self, ratios: Sequence[float]) -> list[float]:
        factors = np.log(np.maximum(ratios, 1e-6) / np.maximum(self._plan, 1e-6))
        return np.clip(0.5 + factors / (2 * self._span), 0, 1).tolist()

    def _imagine(self) -> None:
        """Plays episodes whose rewards the losses predict."""
        level, slope = self._line()
        for _ in range(self._imagined):
            state, t, actions = self._env.reset(), 0, []
            while state is not None:
                state, executed = self._env.step(self._ratio(t, self._asked(t, state)))
                actions.append(executed)
                t += 1
            self._searcher.finish(self._corrections(actions), level + slope * self._loss(actions))

    def _line(self) -> tuple[float, float]:
        """Returns the level and the slope of rewards over losses, through good demonstrations.

        Where hardly anything is left to lose, the reward is no longer a line. Where they do not
        tell a slope, it is that to where nothing is lost: searchers are told 0 of the dense
        network or of a perfect one (see `ToldReward`).
        """
        played = sorted(self._played, key=lambda played: -played[2])
        played = played[: max(2, len(played) // 2)]
        losses = [self._loss(actions) for _, actions, _ in played]
        rewards = [reward for _, _, reward in played]
        if np.ptp(losses) > 0:
            slope, level = np.polyfit(losses, rewards, 1)
            if slope < 0:
                return float(level), float(slope)
        slope = -abs(rewards[0]) / max(losses[0], np.finfo(float).tiny)
        return rewards[0] - slope * losses[0], slope

    def _loss(self, actions: Sequence[float]) -> float:
        return self._env.total(self._losses, self._env.filled(actions))
