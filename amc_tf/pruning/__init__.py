"""Applying a plan to a model.

`rebuild` makes the smaller network; `mask` makes one of full size whose pruned channels have no
effect. The two compute the same outputs, to float rounding; `verify` checks that on a model.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.pruning.masked_model import MaskedModel as MaskedModel
    from amc_tf.pruning.masking import mask as mask
    from amc_tf.pruning.surgery import rebuild as rebuild
    from amc_tf.pruning.verification import verify as verify
    from amc_tf.pruning.weights import Weights as Weights
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.pruning.masked_model": "MaskedModel",
            "amc_tf.pruning.masking": "mask",
            "amc_tf.pruning.surgery": "rebuild",
            "amc_tf.pruning.verification": "verify",
            "amc_tf.pruning.weights": "Weights",
        },
    )
