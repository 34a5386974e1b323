"""Searchers: they propose how much to keep.

A `Searcher` receives states and rewards and proposes shares in [0, 1]. The environment deals with
networks and budgets. Each module holds one kind of searcher.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.search.agents.base import Searcher as Searcher
    from amc_tf.search.agents.cma_es import EvolutionSearcher as EvolutionSearcher
    from amc_tf.search.agents.guided import GuidedSearcher as GuidedSearcher
    from amc_tf.search.agents.handcrafted import PROFILES as PROFILES
    from amc_tf.search.agents.handcrafted import FixedSearcher as FixedSearcher
    from amc_tf.search.agents.handcrafted import profile as profile
    from amc_tf.search.agents.random import RandomSearcher as RandomSearcher
    from amc_tf.search.agents.response_surface import ResponseSearcher as ResponseSearcher
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.search.agents.base": "Searcher",
            "amc_tf.search.agents.cma_es": "EvolutionSearcher",
            "amc_tf.search.agents.guided": "GuidedSearcher",
            "amc_tf.search.agents.handcrafted": "FixedSearcher PROFILES profile",
            "amc_tf.search.agents.random": "RandomSearcher",
            "amc_tf.search.agents.response_surface": "ResponseSearcher",
        },
    )
