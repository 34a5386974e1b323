"""Layer and RMS normalisation of a masked network: statistics of the channels that are kept.

A rebuilt network has the kept channels alone, so its normalisations take the statistics of these.
In a masked network the others are still there.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl


class KeptNormalization(keras.Layer):
    """A normalisation over the last axis that leaves channels out.

    Args:
        of: layer whose settings and weights it has; a LayerNormalization or RMSNormalization.
    """

    def __init__(self, of: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.centred = not isinstance(of, kl.RMSNormalization) and not getattr(
            of, "rms_scaling", False
        )
        self.epsilon = of.epsilon
        held = {weight.name: weight.shape for weight in of.weights}
        self.gain = next(
            (self.add_weight(shape=held[n], name=n) for n in ("gamma", "scale") if n in held), None
        )
        self.beta = self.add_weight(shape=held["beta"], name="beta") if "beta" in held else None
        self.kept = self.add_weight(
            shape=(kept_channels(of),), initializer="ones", trainable=False, name="kept"
        )
        self.built = True

    def compute_output_spec(self, x: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the result.

        Keras takes the product of a tensor and an array for sparse, which what it infers of
        `call` would then fail on.
        """
        return keras.KerasTensor(x.shape, self.compute_dtype)

    def call(self, x: Any) -> Any:
        """Normalises (..., channels); what is left out is returned, but has no part in it."""
        ops = keras.ops
        values, kept = ops.cast(x, "float32"), ops.cast(self.kept, "float32")
        count = ops.sum(kept)
        if self.centred:
            values = values - ops.sum(values * kept, axis=-1, keepdims=True) / count
        variance = ops.sum(ops.square(values) * kept, axis=-1, keepdims=True) / count
        result = values * ops.rsqrt(variance + self.epsilon)
        if self.gain is not None:
            result = result * ops.cast(self.gain, "float32")
        if self.beta is not None:
            result = result + ops.cast(self.beta, "float32")
        return ops.cast(result, self.compute_dtype)


def kept_channels(layer: Any) -> int:
    """Returns the number of channels that a normalisation was built for."""
    shapes = [weight.shape for weight in layer.weights] or [layer.get_build_config()["input_shape"]]
    return int(np.atleast_1d(shapes[0])[-1])
