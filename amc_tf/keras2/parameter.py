"""The Keras 2 counterpart of `amc_tf.graph.parameter`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras


class Parameter(tf_keras.layers.Layer):
    """A layer that returns its one weight; see `amc_tf.graph.parameter.Parameter`."""

    def __init__(
        self,
        shape: Sequence[int],
        each_sample: bool,
        weight_dtype: str,
        weight_name: str = "value",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.each_sample = each_sample
        self.weight_dtype = weight_dtype
        self.weight_name = weight_name
        self.value = self.add_weight(
            shape=self.shape,
            dtype=weight_dtype,
            initializer="zeros",
            trainable=self.trainable,
            name=weight_name,
        )

    def call(self, like: Any) -> Any:
        """Returns the weight; `like` tells where in the network that is, and the batch."""
        sizes = (1,) * (2 - len(self.shape)) + self.shape
        value = tf.reshape(tf.convert_to_tensor(self.value), sizes)
        if not self.each_sample:
            return value
        return tf.broadcast_to(value, (tf.shape(like)[0], *sizes[1:]))

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is made from again, without its weight's values."""
        return {
            **super().get_config(),
            "shape": self.shape,
            "each_sample": self.each_sample,
            "weight_dtype": self.weight_dtype,
            "weight_name": self.weight_name,
        }
