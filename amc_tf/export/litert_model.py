"""A TFLite file where a Keras model is expected."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tflite_tools
from amc_tf.graph.keras_structure import like


def as_keras(content: bytes, model: keras.Model) -> keras.Model:
    """Makes a Keras model that computes what a TFLite file computes.

    So the user's own compile and evaluate measure the very file that ships.

    Args:
        content: the .tflite file.
        model: the Keras model it was made from. Class, inputs, names and nesting of outputs are
            the same, so that losses and metrics of each output find theirs.

    Returns:
        An uncompiled model, which cannot be trained.
    """
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    outputs = _File(content, model.outputs)(inputs)
    made = like(model, inputs, list(outputs))
    if hasattr(model, "output_names"):
        made.output_names = list(model.output_names)
    return made


class _File(keras.Layer):
    """A TFLite file as a layer.

    Args:
        content: the .tflite file.
        outputs: the symbolic outputs of the model it was made from.
    """

    def __init__(self, content: bytes, outputs: list[keras.KerasTensor]):
        super().__init__(name="litert_file", trainable=False, autocast=False)
        self.supports_jit = False  # a compiled graph cannot call the interpreter
        self._interpreter = tflite_tools.LiteRtModel(content)
        self._specs = [(tuple(t.shape), t.dtype) for t in outputs]

    def compute_output_spec(self, inputs: Any) -> tuple[keras.KerasTensor, ...]:
        """Returns the shapes of the model's outputs."""
        del inputs
        return tuple(keras.KerasTensor(shape, dtype) for shape, dtype in self._specs)

    def call(self, inputs: list[Any]) -> tuple[Any, ...]:
        """Runs the file on a batch."""
        dtypes = [dtype for _, dtype in self._specs]
        # In eager mode numpy_function returns a single output without a list.
        outputs = tf.nest.flatten(tf.numpy_function(self._predict, inputs, dtypes))
        specs = zip(outputs, self._specs, strict=True)
        return tuple(tf.ensure_shape(found, (None, *shape[1:])) for found, (shape, _) in specs)

    def _predict(self, *inputs: np.ndarray) -> list[np.ndarray]:
        outputs = self._interpreter.predict(list(inputs) if len(inputs) > 1 else inputs[0])
        outputs = outputs if isinstance(outputs, list) else [outputs]
        pairs = zip(outputs, self._specs, strict=True)
        return [found.astype(dtype) for found, (_, dtype) in pairs]
