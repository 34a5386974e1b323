"""Decisions under a budget.

A `DecisionEnv` is asked for one share after another and turns each into a count that can still meet
the budget; `CompressionEnv` decides the channels of groups. It knows neither agents nor data.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.search.env.base import DecisionEnv as DecisionEnv
    from amc_tf.search.env.base import Outcome as Outcome
    from amc_tf.search.env.budget import Budget as Budget
    from amc_tf.search.env.budget import CountCost as CountCost
    from amc_tf.search.env.channel_env import CompressionEnv as CompressionEnv
    from amc_tf.search.env.rewards import REWARDS as REWARDS
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.search.env.base": "DecisionEnv Outcome",
            "amc_tf.search.env.budget": "Budget CountCost",
            "amc_tf.search.env.channel_env": "CompressionEnv",
            "amc_tf.search.env.rewards": "REWARDS",
        },
    )
