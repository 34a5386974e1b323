"""Restoring the weights of a pruned network by least squares, without labels.

A `Refit` gives the weights for a plan; `REFITS` lists the methods by name. Layers that read
pruned channels are fitted so that their outputs come close to the dense network's again.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.pruning.refit.batch_norm import Reestimated as Reestimated
    from amc_tf.pruning.refit.dense import gather as gather
    from amc_tf.pruning.refit.in_order import gather_in_order as gather_in_order
    from amc_tf.pruning.refit.methods import REFITS as REFITS
    from amc_tf.pruning.refit.methods import Refit as Refit
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.pruning.refit.batch_norm": "Reestimated",
            "amc_tf.pruning.refit.dense": "gather",
            "amc_tf.pruning.refit.in_order": "gather_in_order",
            "amc_tf.pruning.refit.methods": "REFITS Refit",
        },
    )
