"""A searcher that is guided by demonstrations and by a model of the reward."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from amc_tf.search.agents.base import Searcher
from amc_tf.search.agents.response_surface import ResponseSearcher


class GuidedSearcher:
    """A searcher that also plays demonstrations and proposals of a model of the reward.

    The first episodes follow the demonstrations. So the replay begins with
    plans that an engineer would have tried, and the best plan is never worse
    than these. The model proposes the other episodes of the warm-up, in which
    an agent could only draw at random, and then a share of the rest: it finds
    good plans in far fewer episodes than a policy needs to learn them. The
    searcher proposes the remaining episodes while this pays. Each of its
    episodes that is not the best so far halves how often its turn comes; one
    that is the best restores it. Both learn from every episode: DDPG can,
    because it learns off policy.

    Args:
        searcher: the searcher that is guided.
        demonstrations: actions of each of the first episodes.
        response: the model of the reward; None for no guidance.
        share: initial share of the episodes after the warm-up that the model proposes, in
            [0, 1]; with 0 it only learns, as a searcher may be guided by it otherwise.
        warmup: number of episodes, demonstrations included, before the searcher proposes any.
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
        """Returns the next action of the episode's plan, or the searcher's own action."""
        proposed = self._searcher.act(state)
        if self._step == 0:
            self._plan = self._planned()
        self._step += 1
        return proposed if self._plan is None else self._plan[self._step - 1]

    def _planned(self) -> Sequence[float] | None:
        if self._episode < len(self._demonstrations):
            return self._demonstrations[self._episode]
        if self._response is None or not self._share:
            return None
        if self._episode >= self._warmup:
            self._due += (1 - self._share) * self._patience
        if self._due < 1:
            return self._response.planned()
        self._due -= 1
        return None

    def finish(self, actions: Sequence[float], reward: float) -> dict[str, float]:
        """Passes the executed actions and the reward to the model and to the searcher."""
        if self._response is not None:
            self._response.learn(actions, reward)
        if self._plan is None:
            self._patience = 1.0 if reward > self._best else self._patience / 2
        self._best = max(self._best, reward)
        self._episode, self._step = self._episode + 1, 0
        return self._searcher.finish(actions, reward)
