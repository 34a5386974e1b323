"""Residual blocks turned into plain ones that compute the same.

A block y = x + F(x) is folded where F can carry x beside its own channels and add it in its last
kernel. The network gets wider, and nothing ties the channels of its blocks to each other any more.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.pruning.residuals.folding import Residual as Residual
    from amc_tf.pruning.residuals.folding import fold_residuals as fold_residuals
    from amc_tf.pruning.residuals.folding import residuals as residuals
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {"amc_tf.pruning.residuals.folding": "Residual fold_residuals residuals"},
    )
