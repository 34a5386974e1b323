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
        weight: a weight of another layer to share, of this shape; None for a new one.
    """

    def __init__(self, shape: Sequence[int], weight: keras.Variable | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.value = (
            self.add_weight(shape=self.shape, name="value", trainable=self.trainable)
            if weight is None
            else weight
        )
        self.built = True

    @classmethod
    def sharing(cls, weight: keras.Variable) -> Parameter:
        """Makes a layer of a weight that another layer holds."""
        return cls(weight.shape, weight, name=weight.name, trainable=weight.trainable)

    def call(self, like: Any) -> Any:
        """Returns the weight; `like` says nothing but where in the network that is."""
        del like
        return keras.ops.reshape(self.value, self._returned)

    def compute_output_spec(self, like: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the weight."""
        return keras.KerasTensor(self._returned, self.compute_dtype)

    @property
    def _returned(self) -> tuple[int, ...]:
        return (1,) * (2 - len(self.shape)) + self.shape

    def get_config(self) -> dict[str, Any]:
        """Returns what the layer is made from again, without its weight's values."""
        return {**super().get_config(), "shape": self.shape}
