"""A searcher that corrects a plan which is good already.

What the groups lose by the closed-form errors of their refits gives a good plan before the first
episode (see `amc_tf.search.agents.knapsack`), and a model of the reward a better one with each
episode (see `amc_tf.search.agents.response_surface`). An agent that had to find them anew would
spend all of a short search on that. So its action is a correction instead: the middle of its range
leaves the model's ratio as it is, and at the ends the model expects to lose a certain part of the
reward. An untrained actor, whose actions lie in the middle, proposes about the model's plan, and
exploration is wide where little can be lost.

One reward for dozens of decisions says little of each. So each is told what it earned by itself:
what the count it chose is worth by the model, beyond the count of the plan, less what it costs, at
the price that the plan pays elsewhere. What the model did not foresee of an episode's reward is
shared out equally. Imagined episodes, with random corrections and no real reward, teach the critic
the model before the first own episode, and keep it up to date after each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from amc_tf.search.agents.base import EarningSearcher
from amc_tf.search.agents.priced_plan import advantages
from amc_tf.search.agents.response_surface import ResponseSearcher
from amc_tf.search.env.base import DecisionEnv

# Features that are added to a state: the ratio that is corrected, and the group's loss at these
# shares of its channels, the square root relative to the largest of all groups.
_SHARES = (0.75, 0.5, 0.25)
NUM_KNOWN = 1 + len(_SHARES)
# Most that a decision is told to have earned or lost, in units of what it may lose.
_MOST = 3.0


class CorrectingSearcher:
    """A `Searcher` whose actions are corrections of what a model of the reward proposes.

    Args:
        searcher: searcher that proposes actions in [0, 1], 0.5 for no correction. Its states have
            `NUM_KNOWN` more features.
        env: the environment of the episodes.
        losses: loss of each allowed count of each decision, as `env.choices`.
        response: the model, which learns from each episode before this searcher is told of it.
        demonstrations: number of first episodes whose actions others choose.
        imagined: number of imagined episodes after them.
        refreshed: number of imagined episodes after each later one.
        risk: share of the best reward that all corrections together may lose by the model, above
            0.
        seed: seed of imagined episodes.
    """

    def __init__(
        self,
        searcher: EarningSearcher,
        env: DecisionEnv,
        losses: Sequence[np.ndarray],
        response: ResponseSearcher,
        demonstrations: int = 0,
        imagined: int = 0,
        refreshed: int = 0,
        risk: float = 0.3,
        seed: int = 0,
    ):
        self._searcher = searcher
        self._env = copy.copy(env)  # imagined episodes do not disturb the real one
        self._losses = losses
        self._response = response
        self._demonstrations = demonstrations
        self._imagined = imagined
        self._refreshed = refreshed
        self._risk = risk
        self._rng = np.random.default_rng(seed)
        largest = max(float(np.max(loss)) for loss in losses)
        self._known = [
            np.sqrt(np.clip(lost / max(largest, np.finfo(float).tiny), 0, 1))
            for lost in (
                np.interp([share * dense for share in _SHARES], choices, loss)
                for dense, choices, loss in zip(env.problem.dense, env.choices, losses, strict=True)
            )
        ]
        self._states: list[np.ndarray] = []
        self._best: tuple[float, Sequence[float]] = (-np.inf, ())
        self._unforeseen: list[float] = []

    def act(self, state: np.ndarray) -> float:
        """Returns a ratio of the model's plan, corrected."""
        if self._demonstrations:
            return 1.0
        if not self._states:
            self._correct(self._response.planned())
        self._states.append(state)
        return self._ratio(len(self._states) - 1, self._asked(len(self._states) - 1, state))

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Tells the searcher what each correction earned; nothing of demonstrations."""
        self._states.clear()
        self._best = max(self._best, (reward, tuple(actions)))
        if self._demonstrations:
            self._demonstrations -= 1
            if not self._demonstrations:
                self._correct(self._response.planned())
                self._imagine(self._imagined)
            return {}
        told = self._told(actions, reward)
        self._imagine(self._refreshed)
        return told

    def _correct(self, plan: Sequence[float]) -> None:
        """Makes a plan the one that is corrected."""
        # A model may propose more than the environment would execute.
        most = [allowed[-1] for allowed in self._env.choices] / self._env.problem.dense
        self._plan = np.minimum(plan, most)
        ratios: Sequence[float] = self._plan.tolist()
        reward, actions = self._best if self._best[1] else (1.0, ratios)
        worth = self._response.worth
        if worth is None:
            # A line through the best plan: searchers are told 0 of the dense network or of a
            # perfect one (see `ToldReward`).
            lost = self._env.total(self._losses, self._env.filled(actions))
            slope = abs(reward) / max(lost, float(np.finfo(np.float32).tiny))
            worth = [-slope * loss for loss in self._losses]
        self._worth = worth
        self._advantages = advantages(self._env, worth, self._env.filled(ratios))
        least = float(np.finfo(np.float32).tiny)
        self._unit = max(self._risk * abs(reward) / len(self._plan), least)
        dense = np.asarray(self._env.problem.dense)
        tables = zip(self._env.choices, self._advantages, self._plan * dense, strict=True)
        ends = [_reach(allowed, table, count, self._unit) for allowed, table, count in tables]
        self._ends = np.array(ends) / dense[:, None]

    def _asked(self, t: int, state: np.ndarray) -> float:
        known = np.array([*state, self._plan[t], *self._known[t]], np.float32)
        return self._searcher.act(known)

    def _ratio(self, t: int, action: float) -> float:
        low, high = self._ends[t]
        return float(np.interp(action, [0.0, 0.5, 1.0], [low, self._plan[t], high]))

    def _correction(self, t: int, ratio: float) -> float:
        low, high = self._ends[t]
        end = high if ratio > self._plan[t] else low
        if end == self._plan[t]:
            return 0.5
        moved = (ratio - self._plan[t]) / (end - self._plan[t])
        return float(np.clip(0.5 + 0.5 * moved * np.sign(end - self._plan[t]), 0.0, 1.0))

    def _told(self, actions: Sequence[float], reward: float | None = None) -> dict[str, float]:
        """Tells the searcher of an episode; without a reward, what the model expects of it."""
        counts = np.rint(np.asarray(actions) * self._env.problem.dense)
        earned = self._env.each(self._advantages, counts)
        if reward is not None:
            earned += self._surprise(actions, reward) / len(earned)
        corrections = [self._correction(t, ratio) for t, ratio in enumerate(actions)]
        earned = np.clip(earned / self._unit, -_MOST, _MOST)
        return self._searcher.finish(corrections, earned.tolist())

    def _surprise(self, actions: Sequence[float], reward: float) -> float:
        """Returns how much better an episode is than foreseen, beyond how much they usually are.

        The model's own proposals are those of which it expects too much.
        """
        best, of_best = self._best
        gain = self._env.total(self._worth, self._env.filled(actions)) - self._env.total(
            self._worth, self._env.filled(of_best)
        )
        self._unforeseen.append(reward - best - gain)
        return self._unforeseen[-1] - float(np.mean(self._unforeseen))

    def _imagine(self, episodes: int) -> None:
        """Plays episodes of random corrections, of which the searcher is told what they earn."""
        for _ in range(episodes):
            state, t, actions = self._env.reset(), 0, []
            while state is not None:
                self._asked(t, state)
                state, executed = self._env.step(self._ratio(t, self._rng.uniform()))
                actions.append(executed)
                t += 1
            self._told(actions)


def _reach(
    allowed: np.ndarray, advantage: np.ndarray, count: float, loss: float
) -> tuple[float, float]:
    """Returns how far from a count one may go, down and up, until the loss is reached."""
    at = int(np.searchsorted(allowed, round(count)))
    ends = []
    for step, last in ((-1, 0), (1, len(allowed) - 1)):
        place, end = at, float(allowed[at])
        while place != last:
            before, after = advantage[place], advantage[place + step]
            if after < -loss:
                part = (before + loss) / (before - after)
                end += part * float(allowed[place + step] - allowed[place])
                break
            place += step
            end = float(allowed[place])
        ends.append(end)
    return ends[0], ends[1]
