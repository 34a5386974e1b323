"""The best plans of a search, scored again where the first score does not decide."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from amc_tf import story
from amc_tf.graph.plan import PruningPlan
from amc_tf.runs import layout
from amc_tf.runs.episode_log import EpisodeLog
from amc_tf.scoring.base import Scorer
from amc_tf.search.agents.handcrafted import FixedSearcher
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.env.base import DecisionEnv, Outcome
from amc_tf.search.env.budget import Budget
from amc_tf.search.env.problem import Problem
from amc_tf.search.problem import environment
from amc_tf.search.settings import SearchSettings
from amc_tf.training.metric import Metric

Ranked = dict[str, list[Outcome[PruningPlan]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Finalists:
    """The best plans of every policy.

    Attributes:
        actions: actions of each policy's best plans, by the policy's name.
        problem: the decisions of the search.
        settings: the search's settings.
        score: scorer of networks as they are built, with the final refit.
        workdir: folder of the logs.
        ranks: see `EpisodeLog`.
        metric: what the scores are.
    """

    actions: Mapping[str, Sequence[Sequence[float]]]
    problem: Problem[PruningPlan]
    settings: SearchSettings
    score: Scorer[PruningPlan]
    workdir: pathlib.Path
    ranks: str
    metric: Metric

    def rescored(self, budget: Budget | None) -> Ranked:
        """Returns the outcomes of the plans with the final refit, each policy's best first.

        The best one is that of the best score, unless the reward prices a cost (see `Merit`).
        """
        env = environment(self.problem, budget, self.settings, self.metric)
        most = max(map(len, self.actions.values()), default=0)
        what = f"  finalists: up to {most} plans of each searcher, refitted as the final network"
        story.tell("finalists", what, plans={name: len(of) for name, of in self.actions.items()})
        return self._played(layout.finals_file(), env, self.actions)

    def within(self, number: int, budget: Budget, names: Sequence[str]) -> Ranked:
        """Returns the outcomes of some policies' plans, made smaller to fit a tighter budget.

        Args:
            number: number of the tighter budget, different for each of a search.
            budget: the tighter budget.
            names: names of the policies.
        """
        env = environment(self.problem, budget, self.settings, self.metric)
        # Scaled in proportion: if decided one after another, only the last would shrink.
        plans = {name: [env.fitted(actions) for actions in self.actions[name]] for name in names}
        return self._played(layout.finals_file(number), env, plans)

    def _played(
        self,
        log: str,
        env: DecisionEnv[PruningPlan],
        plans: Mapping[str, Sequence[Sequence[float]]],
    ) -> Ranked:
        finals = EpisodeLog(self.workdir / log, self.ranks)
        driver = EpisodeDriver(finals, env, self.score, label="final", final=True)
        for name, actions in plans.items():
            driver.run(name, FixedSearcher(actions), len(actions))
        return driver.ranked
