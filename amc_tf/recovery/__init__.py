"""Accuracy given back without labels.

A pruned and refitted network is trained to give, on views of the calibration images, what the dense
network gives: its outputs, and the features that its layers read. No label is needed, so that a
model from somewhere and a folder of pictures are enough.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.recovery.recovery import Recovered as Recovered
    from amc_tf.recovery.recovery import recover as recover
    from amc_tf.recovery.settings import RecoverySettings as RecoverySettings
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.recovery.recovery": "Recovered recover",
            "amc_tf.recovery.settings": "RecoverySettings",
        },
    )
