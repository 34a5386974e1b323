"""The rounding of kernels in quantisation-aware training."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras

from amc_tf.export.qat.tfmot import quantizers

# A filter that is nearly zero gets this part of the layer's largest range: the file's bias has the
# scale of the input times that of the filter, and would not fit into 32 bits.
_LEAST = 1e-3


class KernelQuantizer(quantizers.Quantizer):
    """Rounds a kernel to 8 bits, with the range of its present values.

    TFMOT's own quantizers give a depthwise kernel one range for all channels, where LiteRT's
    kernels and the post-training file have one each.

    Args:
        depthwise: whether the last two axes of the kernel are channels, and not the last alone.
        per_channel: whether each output channel has a range of its own.
    """

    def __init__(self, depthwise: bool = False, per_channel: bool = True):
        self._depthwise = depthwise
        self._per_channel = per_channel

    def build(self, tensor_shape, name, layer):
        """Adds the ranges to the layer's weights; TFMOT's interface."""
        channels = tensor_shape[-1] * (tensor_shape[-2] if self._depthwise else 1)
        shape = (channels,) if self._per_channel else ()
        return {
            end: layer.add_weight(
                name=f"{name}_{end}",
                shape=shape,
                initializer=tf_keras.initializers.Constant(value),
                trainable=False,
            )
            for end, value in (("min", -1.0), ("max", 1.0))
        }

    def __call__(self, inputs, training, weights, **kwargs) -> Any:
        """Rounds a kernel; in training its range becomes that of its values."""
        shape = inputs.shape
        if self._depthwise:
            inputs = tf.reshape(inputs, (*shape[:-2], 1, shape[-2] * shape[-1]))
        low, high = weights["min"], weights["max"]
        if training:
            axes = list(range(inputs.shape.rank - 1)) if self._per_channel else None
            bound = tf.reduce_max(tf.abs(inputs), axis=axes)
            bound = tf.maximum(bound, _LEAST * tf.reduce_max(bound))
            low, high = low.assign(-bound), high.assign(bound)
        rounding = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if self._per_channel
            else tf.quantization.fake_quant_with_min_max_vars
        )
        return tf.reshape(rounding(inputs, low, high, narrow_range=True), shape)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"depthwise": self._depthwise, "per_channel": self._per_channel}
