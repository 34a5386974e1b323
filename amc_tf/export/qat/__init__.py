"""Quantisation-aware training: a network is trained with the rounding of its int8 file.

TensorFlow Model Optimization trains Keras 2 models, so the network is converted to Keras 2.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.export.qat.training import QatSettings as QatSettings
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.export.qat.training": "QatSettings",
        },
    )
