"""The policies of a search, and how they compete."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence

from amc_tf.runs.vocabulary import AGENT, policy_label
from amc_tf.search.agents.base import Searcher
from amc_tf.search.agents.cma_es import EvolutionSearcher
from amc_tf.search.agents.guided import GuidedSearcher
from amc_tf.search.agents.handcrafted import PROFILES, FixedSearcher, profile
from amc_tf.search.agents.random import RandomSearcher
from amc_tf.search.agents.response_surface import ResponseSearcher
from amc_tf.search.driver import EpisodeDriver
from amc_tf.search.settings import SearchSettings

_LOG = logging.getLogger(__name__)


def compete(
    driver: EpisodeDriver,
    agent: Searcher,
    settings: SearchSettings,
    allocated: Mapping[str, Sequence[float]] = {},
) -> None:
    """Plays the episodes of AMC's agent and of every policy that the settings name.

    A policy that is a plan for a budget is not played without one, nor is a plan of channels where
    there are none; a warning says so.

    Args:
        driver: driver that plays the episodes.
        agent: AMC's agent.
        settings: settings of policies, episodes and guidance.
        allocated: preserve ratios of the policies that are one plan, made for this problem.
    """
    env = driver.env
    # Hand-crafted ratios are scaled to a budget, so they need one.
    handcrafted = {
        name: env.fitted(profile(name, len(env)).tolist())
        for name in (PROFILES if env.budget is not None else ())
    }
    start = handcrafted.get("uniform", [0.5] * len(env))
    plans = {**allocated, **handcrafted}

    def response() -> ResponseSearcher:
        return ResponseSearcher(env, start, seed=settings.seed)

    def guided() -> GuidedSearcher:
        return GuidedSearcher(
            agent,
            [*plans.values()] if settings.warm_start else [],
            response() if settings.response_share else None,
            settings.response_share,
            settings.learner.phases()[0],
        )

    searchers: dict[str, Callable[[], Searcher]] = {
        **{name: functools.partial(FixedSearcher, [a]) for name, a in plans.items()},
        AGENT: guided,
        "response": response,
        "cmaes": lambda: EvolutionSearcher(start, seed=settings.seed),
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
            driver.run(name, make(), 1 if name in plans else settings.episodes)
