"""A TensorFlow function as an operation of Keras 3, for functions that `keras.ops` lacks."""

from __future__ import annotations

from typing import Any

import keras
from tensorflow.python.util import tf_export

from amc_tf.keras2.safety import only_computes


class Unlisted(Exception):
    """A call of a TensorFlow function that `keras.ops` cannot express."""


@keras.saving.register_keras_serializable(package="amc_tf")
class TensorFlowOp(keras.Operation):
    """A public TensorFlow function as an operation of a Keras 3 model.

    Args:
        function: name of the function in TensorFlow's API, without `tf.`.
        outputs: (shape, dtype) of every output; a single pair if the function
            returns a tensor rather than a list. Keras 3 cannot always infer them.
        name: name of the operation.

    Raises:
        ValueError: the function may do more than compute. A model file must not be
            able to write other files, for instance.
    """

    def __init__(self, function: str, outputs: list, name: str | None = None):
        super().__init__(name=name)
        if not only_computes(function):
            raise ValueError(f"expected a function that only computes, received tf.{function}")
        self.function = function
        self.outputs_like = outputs

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return tf_export.get_symbol_from_name(self.function)(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the recorded shapes and types."""
        if isinstance(self.outputs_like[1], str):
            return _spec(self.outputs_like)
        return [_spec(output) for output in self.outputs_like]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"function": self.function, "outputs": self.outputs_like, "name": self.name}


def _spec(output: Any) -> keras.KerasTensor:
    shape, dtype = output
    return keras.KerasTensor(tuple(shape), dtype)


def is_symbolic(x: Any) -> bool:
    """Returns whether a value is a symbolic tensor, of a model that is being built."""
    return isinstance(x, keras.KerasTensor)


def dtype_of(tensor: Any) -> str:
    """Returns a tensor's type as Keras writes it."""
    return keras.backend.standardize_dtype(tensor.dtype)
