"""Fine-grained pruning: single weights instead of channels (AMC, section 3.2 and table 5).

`sparsify` prunes in rounds, each to a given density. In each round the agents of the channel
search choose a density for every kernel, the weights kept are refitted, and the masks hold
through the user's fine-tuning.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.sparsity.plan import DensityPlan as DensityPlan
    from amc_tf.sparsity.rounds import sparsify as sparsify
    from amc_tf.sparsity.settings import SparsitySettings as SparsitySettings
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.sparsity.plan": "DensityPlan",
            "amc_tf.sparsity.rounds": "sparsify",
            "amc_tf.sparsity.settings": "SparsitySettings",
        },
    )
