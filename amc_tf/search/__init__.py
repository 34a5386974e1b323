"""The search for a plan: policies that play in one environment under a budget.

`search_plan` runs them all and returns the best plan of each as a `SearchResult`. The searchers
all get the same number of evaluations. After an interruption, the same call resumes from its log
and ends with the same plan.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.search.driver import EpisodeDriver as EpisodeDriver
    from amc_tf.search.plan_search import search_plan as search_plan
    from amc_tf.search.policies import compete as compete
    from amc_tf.search.result import SearchResult as SearchResult
    from amc_tf.search.settings import POLICIES as POLICIES
    from amc_tf.search.settings import SearchSettings as SearchSettings
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.search.driver": "EpisodeDriver",
            "amc_tf.search.plan_search": "search_plan",
            "amc_tf.search.policies": "compete",
            "amc_tf.search.result": "SearchResult",
            "amc_tf.search.settings": "POLICIES SearchSettings",
        },
    )
