"""Decisions under a budget.

A `Problem` describes the decisions: the counts that each may keep, their costs and the features
that an agent sees. `channel_problem` makes the problem of a channel graph. A `DecisionEnv` poses a
problem under a budget: it takes one share after another and turns each into a count with which the
budget can still be met. Neither depends on agents or data.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.search.env.base import Decided as Decided
    from amc_tf.search.env.base import DecisionEnv as DecisionEnv
    from amc_tf.search.env.base import Outcome as Outcome
    from amc_tf.search.env.budget import Budget as Budget
    from amc_tf.search.env.budget import CountCost as CountCost
    from amc_tf.search.env.channels import channel_problem as channel_problem
    from amc_tf.search.env.problem import Problem as Problem
    from amc_tf.search.env.rewards import REWARDS as REWARDS
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.search.env.base": "Decided DecisionEnv Outcome",
            "amc_tf.search.env.budget": "Budget CountCost",
            "amc_tf.search.env.channels": "channel_problem",
            "amc_tf.search.env.problem": "Problem",
            "amc_tf.search.env.rewards": "REWARDS",
        },
    )
