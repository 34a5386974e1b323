"""Keras 2 models in and out.

`from_keras2` makes a Keras 3 model of a Keras 2 one, `to_keras2` goes the other way. Both run the
copy beside the original on random inputs and refuse it where they differ.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.keras2.convert import from_keras2 as from_keras2
    from amc_tf.keras2.convert import to_keras2 as to_keras2
    from amc_tf.keras2.model_files import is_keras2_file as is_keras2_file
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.keras2.convert": "from_keras2 to_keras2",
            "amc_tf.keras2.model_files": "is_keras2_file",
        },
    )
