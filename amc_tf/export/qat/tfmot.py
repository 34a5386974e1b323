"""TensorFlow Model Optimization, without the side effect of its import.

Its import sets TF_USE_LEGACY_KERAS for good. This would make `tf.keras` Keras 2 in every child
process, and in this process too if nothing has used `tf.keras` yet.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def _keras_left_alone() -> Iterator[None]:
    name = "TF_USE_LEGACY_KERAS"
    before = os.environ.get(name)
    _ = tf.keras.layers  # the first use loads tf.keras, which then does not change any more
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


with _keras_left_alone():
    from tensorflow_model_optimization.python.core.quantization.keras import (
        quantize_aware_activation,
        quantize_config,
        quantize_layer,
        quantize_wrapper,
        quantizers,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as registry,
    )

__all__ = [
    "quantize_aware_activation",
    "quantize_config",
    "quantize_layer",
    "quantize_wrapper",
    "quantizers",
    "registry",
]
