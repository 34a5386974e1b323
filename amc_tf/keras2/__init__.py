"""Conversion of Keras 2 models to Keras 3 and back.

`from_keras2` makes a Keras 3 model from a Keras 2 model; `to_keras2` does the reverse. Both run
the original and the copy on random inputs and raise an error if the outputs differ.
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
