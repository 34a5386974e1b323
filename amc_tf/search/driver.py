"""Policies that play in one environment, one after another, every episode logged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from amc_tf.errors import AmcError
from amc_tf.graph.plan import PruningPlan
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.scoring.base import Scorer
from amc_tf.search.agents.base import Searcher
from amc_tf.search.env.base import DecisionEnv, Outcome


class Contest:
    """Episodes of searchers in one environment.

    A plan that the log knows is not measured again, whoever tried it.

    Args:
        path: of the log.
        make_env: makes the environment that scores plans by the function it is given.
        ranks: see `EpisodeLog`.

    Attributes:
        measure: measures the accuracy of a plan; to be set before the first episode.
        env: the environment.
        log: the log.
        ranked: of each policy the outcomes, the best first (of equal ones the earliest).
        watch: is shown the record of every episode, those that the log knew included.
    """

    measure: Scorer

    def __init__(
        self,
        path: str | os.PathLike,
        make_env: Callable[[Callable[[PruningPlan], float]], DecisionEnv],
        ranks: str = "",
    ):
        self.log = EpisodeLog(path, ranks)
        self.env = make_env(self._score)
        self.ranked: dict[str, list[Outcome]] = {}
        self.watch: Callable[[dict[str, Any]], None] | None = None
        self._best: Outcome | None = None  # of the policy that plays

    def _score(self, plan: PruningPlan) -> float:
        known = self.log.accuracy(plan.counts)
        if known is not None:
            return known
        return self.measure(plan, None if self._best is None else self._best.accuracy)

    def run(self, policy: str, searcher: Searcher, episodes: int) -> None:
        """Plays the episodes of one policy.

        Raises:
            AmcError: see `Task.score`, `DdpgSearcher` and `EpisodeLog`; the message
                begins with the episode.
        """
        outcomes: list[Outcome] = []
        self._best = None
        with tqdm(total=episodes, desc=policy, unit="ep", dynamic_ncols=True) as bar:
            for episode in range(episodes):
                try:
                    outcome = self._play(policy, episode, searcher)
                except AmcError as error:
                    # The same exception, as what failed is in its class.
                    error.args = (f"episode {episode} of {policy!r}: {error}",)
                    raise
                outcomes.append(outcome)
                if self._best is None or outcome.reward > self._best.reward:
                    self._best = outcome
                bar.update()
                uniform = self.ranked.get("uniform")
                bar.set_postfix(
                    best=f"{self._best.accuracy:.4f}",
                    **({"uniform": f"{uniform[0].accuracy:.4f}"} if uniform else {}),
                )
        self.ranked[policy] = sorted(outcomes, key=lambda outcome: -outcome.reward)

    def _play(self, policy: str, episode: int, searcher: Searcher) -> Outcome:
        start = time.monotonic()
        state = self.env.reset()
        while state is not None:
            state, _ = self.env.step(searcher.act(state))
        outcome = self.env.finish()
        diagnostics = searcher.finish(outcome.actions, outcome.reward)
        record = {
            "policy": policy,
            "episode": episode,
            "reward": outcome.reward,
            "accuracy": outcome.accuracy,
            "macs": outcome.macs,
            "params": outcome.params,
            **({} if outcome.latency_ms is None else {"latency_ms": outcome.latency_ms}),
            "actions": outcome.actions,
            "counts": outcome.counts,
            "seconds": round(time.monotonic() - start, 4),
            **{k: v for k, v in diagnostics.items() if v == v},  # NaN: nothing learnt yet
        }
        self.log.add(record)
        if self.watch is not None:
            self.watch(record)
        return outcome

    def best(self, policy: str, count: int) -> list[Outcome]:
        """The best outcomes of a policy, each choice of channels once."""
        first: dict[tuple[int, ...], Outcome] = {}
        for outcome in self.ranked[policy]:
            first.setdefault(outcome.counts, outcome)
        return list(first.values())[:count]
