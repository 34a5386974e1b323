"""The stages of a compression and their resumption.

`compress` turns a trained model into checked TFLite files. `Compression` runs the stages one by
one. `Compressor` offers the whole compression as a `fit`. An experiment file describes a run for
the commands. A stage whose files exist is not repeated.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.pipeline.compression import Compression as Compression
    from amc_tf.pipeline.compression import compress as compress
    from amc_tf.pipeline.compressor import Compressor as Compressor
    from amc_tf.pipeline.config import default_config as default_config
    from amc_tf.pipeline.settings import Settings as Settings
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.pipeline.compression": "Compression compress",
            "amc_tf.pipeline.compressor": "Compressor",
            "amc_tf.pipeline.config": "default_config",
            "amc_tf.pipeline.settings": "Settings",
        },
    )
