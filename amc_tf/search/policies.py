"""The policies of a search, and how they compete."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

from amc_tf.runs.vocabulary import AGENT, policy_label
from amc_tf.search.agents.base import Allocations, EarningSearcher, Searcher
from amc_tf.search.agents.cma_es import EvolutionSearcher
from amc_tf.search.agents.correction import CorrectingSearcher
from amc_tf.search.agents.guided import GuidedSearcher
from amc_tf.search.agents.handcrafted import PROFILES, FixedSearcher, profile
from amc_tf.search.agents.random import RandomSearcher
from amc_tf.search.agents.response_surface import ResponseSearcher
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.settings import KNAPSACK, REFRESHED, SearchSettings

_LOG = logging.getLogger(__name__)


def compete(
    driver: EpisodeDriver,
    agent: EarningSearcher,
    settings: SearchSettings,
    allocations: Allocations | None = None,
) -> None:
    """Plays the episodes of AMC's agent and of every policy that the settings name.

    A policy that is a plan for a budget is not played without one, nor is a plan of channels where
    there are none; a warning says so.

    Args:
        driver: driver that plays the episodes.
        agent: AMC's agent.
        settings: settings of policies, episodes and guidance.
        allocations: plans made for this problem, and what its decisions lose; None for neither.
    """
    env, allocations = driver.env, allocations or Allocations()
    losses = allocations.losses
    # Hand-crafted ratios are scaled to a budget, so they need one.
    plans = dict(allocations.plans)
    if env.budget is not None:
        plans |= {name: [env.fitted(profile(name, len(env)).tolist())] for name in PROFILES}
    # What was scored as a policy costs the agent nothing. Of the rest, only what may be good.
    shown = [name for name in plans if losses is None or name in (KNAPSACK, *settings.policies)]
    demonstrations = [ratios for name in shown for ratios in plans[name]]

    def start() -> Sequence[float]:
        """Returns the best plan that was played without a search."""
        played = [driver.ranked[name][0] for name in plans if name in driver.ranked]
        if played:
            return max(played, key=lambda outcome: outcome.reward).actions
        return demonstrations[0] if demonstrations else [0.5] * len(env)

    def response() -> ResponseSearcher:
        first = start()
        # What a whole residual stream is worth shows only when the rest was fitted to it.
        others = [ratios for ratios in plans.get(KNAPSACK, ()) if list(ratios) != list(first)]
        return ResponseSearcher(env, first, losses, seed=settings.seed, others=others)

    def guided() -> GuidedSearcher:
        first_plans = demonstrations if settings.warm_start else []
        searcher, first = agent, settings.learner.phases()[0]
        model = response() if settings.response_share else None
        if losses is not None:
            model = model or response()
            searcher = CorrectingSearcher(
                agent,
                env,
                losses,
                model,
                len(first_plans),
                settings.imagined_episodes,
                REFRESHED,
                seed=settings.seed,
            )
            first = len(first_plans)  # from there on, the agent proposes good plans
        return GuidedSearcher(searcher, first_plans, model, settings.response_share, first)

    searchers: dict[str, Callable[[], Searcher]] = {
        **{name: functools.partial(FixedSearcher, given) for name, given in plans.items()},
        AGENT: guided,
        "response": response,
        "cmaes": lambda: EvolutionSearcher(start(), seed=settings.seed),
        "random": lambda: RandomSearcher(settings.seed),
    }
    left_out = [name for name in settings.policies if name not in searchers]
    if left_out:
        _LOG.warning(
            "%s not played: %s; leave them out of SearchSettings(policies=...)%s",
            ", ".join(map(policy_label, left_out)),
            *(
                ("they are plans for a budget, and there is none", ", or give a budget")
                if env.budget is None
                else ("they are plans of channels, and single weights are pruned", "")
            ),
        )
    for name, make in searchers.items():
        if name in (AGENT, *settings.policies):
            driver.run(name, make(), len(plans[name]) if name in plans else settings.episodes)
