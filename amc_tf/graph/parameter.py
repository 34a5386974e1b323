"""A weight as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="amc_tf")
class Parameter(keras.Layer):
    """A layer that returns its one weight, whatever tensor it is called on.

    A model of calls holds layers, and a weight that belongs to none would be neither trained nor
    saved. A block that was looked into keeps its own weights (a scale of channels, learnt
    positions) in layers of this class.

    Args:
        shape: the weight's shape. A tensor of fewer than two axes is returned with two.
        each_sample: whether it is repeated along its first axis, of size 1, for each sample of
            the tensor.
        weight_dtype: dtype of the weight. A float is returned in the layer's compute dtype.
        weight: a weight of another layer to share; None for a new one.
        weight_name: name of the weight: that which it had in the block.
    """

    def __init__(
        self,
        shape: Sequence[int],
        each_sample: bool = False,
        weight_dtype: str = "float32",
        weight: keras.Variable | None = None,
        weight_name: str = "value",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.each_sample = each_sample
        self.weight_dtype = weight_dtype
        self.weight_name = weight_name
        if weight is None:
            weight = self.add_weight(
                shape=self.shape,
                dtype=weight_dtype,
                initializer="zeros",
                trainable=self.trainable,
                name=weight_name,
            )
        self.value = weight
        self.built = True

    @classmethod
    def sharing(cls, weight: keras.Variable, layer: Any, each_sample: bool = False) -> Parameter:
        """Makes a layer of a weight of another layer."""
        return cls(
            weight.shape,
            each_sample,
            keras.backend.standardize_dtype(weight.dtype),
            weight,
            weight.name,
            name=weight.name,
            trainable=weight.trainable,
            dtype=layer.dtype_policy,
        )

    def call(self, like: Any) -> Any:
        """Returns the weight; `like` tells where in the network that is, and the batch."""
        value = keras.ops.cast(keras.ops.reshape(self.value, self._sizes), self._returned)
        if not self.each_sample:
            return value
        return keras.ops.broadcast_to(value, (keras.ops.shape(like)[0], *self._sizes[1:]))

    def compute_output_spec(self, like: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the weight."""
        shape = (like.shape[0], *self._sizes[1:]) if self.each_sample else self._sizes
        return keras.KerasTensor(shape, self._returned)

    @property
    def _sizes(self) -> tuple[int, ...]:
        return (1,) * (2 - len(self.shape)) + self.shape

    @property
    def _returned(self) -> str:
        is_float = keras.backend.is_float_dtype(self.weight_dtype)
        return self.compute_dtype if is_float else self.weight_dtype

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is made from again, without its weight's values."""
        return {
            **super().get_config(),
            "shape": self.shape,
            "each_sample": self.each_sample,
            "weight_dtype": self.weight_dtype,
            "weight_name": self.weight_name,
        }
