"""A TFLite file where a Keras model is expected."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tflite_tools
from amc_tf.graph.keras_structure import nesting, pack


class LiteRtKeras(keras.Model):
    """A TFLite file with the interface of a Keras model.

    So the user's own compile and evaluate measure the very file that ships.

    Args:
        content: the .tflite file.
        like: the Keras model it was made from, for the shapes of its outputs.
    """

    def __init__(self, content: bytes, like: keras.Model):
        super().__init__(name="litert")
        self.supports_jit = False  # a compiled graph cannot call the interpreter
        self._interpreter = tflite_tools.LiteRtModel(content)
        self._shapes = [(None, *t.shape[1:]) for t in like.outputs]
        self._dtypes = [t.dtype for t in like.outputs]
        self._names = [t.name for t in like.inputs]
        self._outputs_like = nesting(like, "outputs")

    def call(self, inputs: Any) -> Any:
        """Runs the file on a batch; outputs are nested as in the Keras model."""
        if isinstance(inputs, dict):
            inputs = [inputs[name] for name in self._names]
        flat = keras.tree.flatten(inputs)
        # In eager mode numpy_function returns a single output without a list.
        outputs = tf.nest.flatten(tf.numpy_function(self._predict, flat, self._dtypes))
        shaped = [tf.ensure_shape(o, s) for o, s in zip(outputs, self._shapes, strict=True)]
        return pack(self._outputs_like, shaped)

    def _predict(self, *inputs: np.ndarray) -> list[np.ndarray]:
        outputs = self._interpreter.predict(list(inputs) if len(inputs) > 1 else inputs[0])
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return [o.astype(d) for o, d in zip(outputs, self._dtypes, strict=True)]
