"""Policies that play in one environment, one after another; every episode is logged."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, Protocol

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.graph.plan import PlanT, PlanT_contra
from amc_tf.runs.episode_log import CUT, DIVERGENCE, EpisodeLog, score_of
from amc_tf.search.agents.base import Searcher
from amc_tf.search.env import rewards
from amc_tf.search.env.base import DecisionEnv, Outcome
from amc_tf.search.merit import Merit
from amc_tf.search.told_reward import ToldReward
from amc_tf.training.score import Score


class Scoring(Protocol[PlanT_contra]):
    """A function that returns the score of a plan, as a `Scorer` does."""

    def __call__(self, plan: PlanT_contra, beat: float | None = None, /) -> float:
        """See `Scorer`."""
        ...


# A plan may be this many times as far from the dense network as the nearest one, and yet be nearer
# after the final refit: scores of episodes are that uncertain (benchmarks/fidelities.py).
_NEAR = 1.5


class EpisodeDriver(Generic[PlanT]):
    """A driver that plays the episodes of searchers in one environment.

    A plan whose score is in the log is not scored again, whichever searcher tried it, unless
    its scoring was cut short.

    Args:
        log: log of all episodes.
        env: the environment.
        score: function that returns the score of a plan, a `Score` with the divergence if the
            reward is made of it.
        watch: function that receives the record of every episode, including episodes that the
            log knew.
        dense_score: score of the dense network; None if it is not known. Searchers are told
            rewards on a scale that it helps to find (see `ToldReward`).
        label: beginning of the label of each progress bar.
        final: whether it plays the finalists: these are ranked by `Merit`, by which one of them
            will be chosen, and not by their rewards.

    Attributes:
        env: the environment.
        score: see above.
        ranked: outcomes of each policy, the best first (of equal ones the earliest).
    """

    def __init__(
        self,
        log: EpisodeLog,
        env: DecisionEnv[PlanT],
        score: Scoring[PlanT],
        watch: Callable[[dict[str, Any]], None] | None = None,
        dense_score: float | None = None,
        label: str = "",
        final: bool = False,
    ):
        self.env = env
        self._label = label
        self.ranked: dict[str, list[Outcome[PlanT]]] = {}
        self._log = log
        self.score = score
        self._watch = watch
        self._final = final
        self._by_divergence = env.reward_name == rewards.DIVERGENCE
        self._dense_reward = (
            None if dense_score is None else env.reward(dense_score, env.problem.dense_costs)
        )

    def run(self, policy: str, searcher: Searcher, episodes: int) -> None:
        """Plays the episodes of one policy.

        Raises:
            AmcError: see `Task.score`, `DdpgSearcher` and `EpisodeLog`; the message
                begins with the episode.
        """
        outcomes: list[Outcome[PlanT]] = []
        played = (outcome.reward for ranked in self.ranked.values() for outcome in ranked)
        told = ToldReward.of(self.env.metric, self._dense_reward, played, self._by_divergence)
        best: Outcome[PlanT] | None = None
        desc = f"{self._label} {policy}".strip()
        with story.bar(episodes, desc, "ep") as bar:
            for episode in range(episodes):
                beat = None if best is None else self._to_beat(best)
                try:
                    outcome = self._play(policy, episode, searcher, beat, told)
                except AmcError as error:
                    # The same object is raised again: callers tell errors apart by their class.
                    error.args = (f"episode {episode} of {policy!r}: {error}",)
                    raise
                outcomes.append(outcome)
                if best is None or self._rank(outcome) > self._rank(best):
                    best = outcome
                bar.update()
                facts = {"policy": policy, "episode": episode, "best": best.score}
                story.mention("episode", f"{desc} {episode + 1} of {episodes}", **facts)
                uniform = self.ranked.get("uniform")
                written = self.env.metric.written
                bar.set_postfix(
                    best=written(best.score),
                    **({"uniform": written(uniform[0].score)} if uniform else {}),
                )
        self.ranked[policy] = sorted(outcomes, key=self._rank, reverse=True)

    def _rank(self, outcome: Outcome[PlanT]) -> Any:
        """Returns what is largest for the best outcome."""
        return Merit.in_env(self.env)(outcome) if self._final else outcome.reward

    def _to_beat(self, best: Outcome[PlanT]) -> Score:
        """Returns what a plan must reach: what hopeless ones are behind is what ranks them."""
        by_divergence = self._by_divergence and not self._final
        return Score(best.score, best.divergence if by_divergence else None)

    def _play(
        self,
        policy: str,
        episode: int,
        searcher: Searcher,
        beat: Score | None,
        told: ToldReward,
    ) -> Outcome[PlanT]:
        start = time.monotonic()
        state = self.env.reset()
        while state is not None:
            state, _ = self.env.step(searcher.act(state))
        decided = self.env.finish()
        known = self._log.played(policy, episode, decided.counts)
        score: float | None = score_of(known) if known else self._log.score(decided.counts)
        if score is None:
            score = self.score(decided.plan, beat)
        outcome = self.env.outcome(decided, score)
        diagnostics = searcher.finish(outcome.actions, told(outcome.reward))
        record = {
            "policy": policy,
            "episode": episode,
            "reward": outcome.reward,
            "score": outcome.score,
            **({} if outcome.divergence is None else {DIVERGENCE: outcome.divergence}),
            **({CUT: True} if outcome.cut else {}),
            "macs": outcome.macs,
            "params": outcome.params,
            **({} if outcome.latency_ms is None else {"latency_ms": outcome.latency_ms}),
            "actions": outcome.actions,
            "counts": outcome.counts,
            "seconds": round(time.monotonic() - start, 4),
            **{k: v for k, v in diagnostics.items() if v == v},  # NaN: nothing learnt yet
        }
        self._log.add(record)
        if self._watch is not None:
            self._watch(record)
        return outcome

    def best(self, policy: str, count: int) -> list[Outcome[PlanT]]:
        """Returns the best outcomes of a policy, each choice of channels once.

        They are at most `count`, and what it played of the other policies' best: these will be
        scored again anyway, and it may be by chance that it has `count` better ones. Of those
        that are much farther from the dense network than the nearest plan of all policies, only
        the first is among them: a better score could not put another in front.
        """
        distinct = self._distinct(policy)
        distinct = [o for o in distinct if o is distinct[0] or self._near(o)]
        others = {
            outcome.counts
            for name in self.ranked
            if name != policy
            for outcome in self._distinct(name)[:count]
        }
        shared = (outcome for outcome in distinct[count:] if outcome.counts in others)
        return [*distinct[:count], *shared]

    def _near(self, outcome: Outcome[PlanT]) -> bool:
        nearest = max(outcomes[0].reward for outcomes in self.ranked.values())  # minus a distance
        return not self._by_divergence or outcome.reward >= _NEAR * nearest

    def finalists(self, policy: str, count: int) -> list[Outcome[PlanT]]:
        """Returns the outcomes of a policy for the choice, each choice of channels once.

        Those of `best` come first, ranked by `Merit`, then the others by their reward. Of all
        plans, that of the best score would be one whose score is the best by chance.
        """
        best = sorted(self.best(policy, count), key=Merit.in_env(self.env), reverse=True)
        of_best = {outcome.counts for outcome in best}
        return [*best, *(o for o in self._distinct(policy) if o.counts not in of_best)]

    def _distinct(self, policy: str) -> list[Outcome[PlanT]]:
        first: dict[tuple[int, ...], Outcome[PlanT]] = {}
        for outcome in self.ranked[policy]:
            first.setdefault(outcome.counts, outcome)
        return list(first.values())
