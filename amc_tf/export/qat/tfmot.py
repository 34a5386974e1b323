"""TensorFlow Model Optimization, without what its import does to the process.

It sets TF_USE_LEGACY_KERAS for good, which would turn the `tf.keras` of this process, if nobody has
used it yet, and that of every child into Keras 2.
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
    _ = tf.keras.layers  # loaded on first use, and from then on what it is
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
