"""Scoring plans: the task's metric of the network under a plan.

`fastest_scorer` picks the fastest way that the network and the user's code allow: the pruned
network's TFLite file, cut out of one converted template, or a full-size model with masked
channels. Neither way rebuilds or retraces a network for each plan.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.scoring.base import Scorer as Scorer
    from amc_tf.scoring.masked_scorer import MaskedScorer as MaskedScorer
    from amc_tf.scoring.scorer import fastest_scorer as fastest_scorer
    from amc_tf.scoring.tflite_scorer import LiteScorer as LiteScorer
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.scoring.base": "Scorer",
            "amc_tf.scoring.masked_scorer": "MaskedScorer",
            "amc_tf.scoring.scorer": "fastest_scorer",
            "amc_tf.scoring.tflite_scorer": "LiteScorer",
        },
    )
