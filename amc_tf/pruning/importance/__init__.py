"""Which channels of a group are pruned first.

A criterion gives every channel of every group a score (`IMPORTANCES` lists them by name);
`strongest` makes the plan that keeps the channels with the highest scores.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.pruning.importance.criteria import IMPORTANCES as IMPORTANCES
    from amc_tf.pruning.importance.criteria import Importance as Importance
    from amc_tf.pruning.importance.criteria import strongest as strongest
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.pruning.importance.criteria": "IMPORTANCES Importance strongest",
        },
    )
