"""A searcher that others show the way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from amc_tf.search.agents.base import Searcher
from amc_tf.search.agents.response_surface import ResponseSearcher


class GuidedSearcher:
    """A searcher with demonstrations, and with proposals of a model of the reward.

    The first episodes follow the demonstrations: the replay begins with what
    an engineer would have tried, and the best plan is never worse than theirs.
    The model proposes the others of the warm-up, in which an agent could only
    draw at random, and then a share of the rest: it finds good plans in far
    fewer episodes than a policy learns to. The searcher has the others as long
    as that pays: each of its episodes that is not the best so far halves how
    often its turn comes, one that is restores it. Both learn from every
    episode: DDPG can, because it learns off policy.

    Args:
        searcher: the one that is guided.
        demonstrations: actions of each of the first episodes.
        response: the model; None for no guidance.
        share: of the episodes after the warm-up that the model proposes at first, in (0, 1].
        warmup: episodes, demonstrations among them, before the searcher proposes any.
    """

    def __init__(
        self,
        searcher: Searcher,
        demonstrations: Sequence[Sequence[float]] = (),
        response: ResponseSearcher | None = None,
        share: float = 0.5,
        warmup: int = 0,
    ):
        self._searcher = searcher
        self._demonstrations = demonstrations
        self._response = response
        self._share = share
        self._warmup = warmup
        self._episode = self._step = 0
        self._plan: Sequence[float] | None = None
        self._due, self._patience, self._best = 0.0, 1.0, -math.inf

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
        if self._response is None:
            return None
        if self._episode >= self._warmup:
            self._due += (1 - self._share) * self._patience
        if self._due < 1:
            return self._response.planned()
        self._due -= 1
        return None

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Passes the executed actions and the reward on to both."""
        if self._response is not None:
            self._response.learn(actions, reward)
        if self._plan is None:
            self._patience = 1.0 if reward > self._best else self._patience / 2
        self._best = max(self._best, reward)
        self._episode, self._step = self._episode + 1, 0
        return self._searcher.finish(actions, reward)
