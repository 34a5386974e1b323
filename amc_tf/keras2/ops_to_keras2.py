"""Operations of Keras 3 as layers of Keras 2.

The table gives a stock Keras 2 layer for an operation wherever one computes the
same, because tools for Keras 2 models know only these. Each of its functions is
called as `f(make, operation, *args, **kwargs)` with the arguments of the
operation's call; `make(class name, **configuration)` returns a new stock layer
with the operation's name and type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.graph.keras_structure import nn_ops, numpy_ops
from amc_tf.keras2.tensorflow_op import TensorFlowOp, dtype_of

Make = Callable[..., Any]


def _to_unary(kind: str, **config: Any) -> Callable[..., Any]:
    return lambda make, operation, x: make(kind, **config)(x)


def _to_activation(name: str) -> Callable[..., Any]:
    return _to_unary("Activation", activation=name)


def _to_function(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda make, operation, *args: function(*args)


def _to_relu6(make: Make, operation: Any, x: Any) -> Any:
    return make("ReLU", max_value=6.0)(x)


def _to_hard_sigmoid(make: Make, operation: Any, x: Any) -> Any:
    x = make("ReLU", max_value=6.0)(make("Rescaling", scale=1.0, offset=3.0)(x))
    return make("Rescaling", scale=1 / 6)(x)


def _to_hard_silu(make: Make, operation: Any, x: Any) -> Any:
    return make("Multiply")([x, _to_hard_sigmoid(make, operation, x)])


def _is_scalar(x: Any) -> bool:
    return not _is_tensor(x) and np.ndim(x) == 0


def _is_tensor(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, np.ndarray)


def _to_binary(
    function: Callable[..., Any],
    kind: str | None = None,
    right: Callable[[float], tuple[float, float]] | None = None,
    left: Callable[[float], tuple[float, float]] | None = None,
) -> Callable[..., Any]:
    """Converts an operation of two tensors, or of a tensor and a number.

    Two tensors are read by the layer `kind`. A tensor and a number become a
    Rescaling by the scale and offset that `right` (for a number on the right) or
    `left` returns. In all other cases the TensorFlow function is called: layers
    that merge align axes differently from NumPy if ranks differ, and need equal
    batch sizes.
    """

    def emit(make: Make, operation: Any, x: Any, y: Any) -> Any:
        tensors = [t for t in (x, y) if _is_tensor(t)]
        floating = all(keras.backend.is_float_dtype(dtype_of(t)) for t in tensors)
        if floating and kind and len(tensors) == 2:
            a, b = (tuple(t.shape) for t in tensors)
            if len(a) == len(b) > 1 and a[0] == b[0]:
                return make(kind)([x, y])
        for number, tensor, linear in ((y, x, right), (x, y, left)):
            if floating and linear and _is_scalar(number) and _is_tensor(tensor):
                scale, offset = linear(float(number))
                return make("Rescaling", scale=scale, offset=offset)(tensor)
        return function(x, y)

    return emit


def _to_reduction(function: Callable[..., Any], pooling: str | None) -> Callable[..., Any]:
    def emit(make: Make, operation: Any, x: Any) -> Any:
        axis, rank = operation.axis, len(x.shape)
        axes = [axis] if isinstance(axis, int) else axis
        spatial = list(range(1, rank - 1))
        if pooling and axes is not None and sorted(a % rank for a in axes) == spatial:
            return make(
                f"{pooling}{rank - 2}D", keepdims=operation.keepdims, data_format="channels_last"
            )(x)
        return function(x, axis=axis, keepdims=operation.keepdims)

    return emit


def _to_concatenate(make: Make, operation: Any, xs: Any) -> Any:
    return make("Concatenate", axis=operation.axis)(list(xs))


def _to_reshape(make: Make, operation: Any, x: Any) -> Any:
    first, *rest = operation.newshape
    same_batch = first in (-1, None) and None not in (*rest, *x.shape[1:]) and -1 not in rest
    if same_batch and int(np.prod(rest)) == int(np.prod(x.shape[1:])):
        return make("Reshape", target_shape=tuple(rest))(x)
    return tf.reshape(x, operation.newshape)


def _to_transpose(make: Make, operation: Any, x: Any) -> Any:
    if operation.axes and operation.axes[0] == 0:
        return make("Permute", dims=tuple(operation.axes[1:]))(x)
    return tf.transpose(x, operation.axes)


def _to_pad(make: Make, operation: Any, x: Any, constant_values: Any = None) -> Any:
    rank = len(x.shape)
    width = [(int(a), int(b)) for a, b in np.broadcast_to(operation.pad_width, (rank, 2))]
    zeros = operation.mode == "constant" and not constant_values
    if zeros and width[0] == width[-1] == (0, 0) and 3 <= rank <= 5:
        inner = tuple(width[1:-1])
        config = {} if rank == 3 else {"data_format": "channels_last"}
        return make(f"ZeroPadding{rank - 2}D", padding=inner[0] if rank == 3 else inner, **config)(
            x
        )
    return tf.pad(x, width, operation.mode.upper(), constant_values or 0)


def _to_get_item(make: Make, operation: Any, x: Any, key: Any) -> Any:
    return x[key]


def _to_clip(make: Make, operation: Any, x: Any) -> Any:
    low, high = operation.x_min, operation.x_max
    if low == 0 and _is_scalar(high) and keras.backend.is_float_dtype(dtype_of(x)):
        return make("ReLU", max_value=float(high))(x)
    return tf.clip_by_value(x, low, high)


def _to_pool(kind: str) -> Callable[..., Any]:
    def emit(make: Make, operation: Any, x: Any) -> Any:
        return make(
            f"{kind}{len(x.shape) - 2}D",
            pool_size=operation.pool_size,
            strides=operation.strides,
            padding=operation.padding,
            data_format=operation.data_format,
        )(x)

    return emit


def _to_gelu(make: Make, operation: Any, x: Any) -> Any:
    if operation.approximate:
        return tf.nn.gelu(x, approximate=True)
    return make("Activation", activation="gelu")(x)


_SCALE = {"right": lambda c: (c, 0.0), "left": lambda c: (c, 0.0)}

_DIVIDE = _to_binary(tf.math.truediv, right=lambda c: (1 / c, 0.0))

_TO_KERAS_2: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (
        numpy_ops,
        "Add",
        _to_binary(tf.add, "Add", right=lambda c: (1.0, c), left=lambda c: (1.0, c)),
    ),
    (
        numpy_ops,
        "Subtract",
        _to_binary(tf.subtract, "Subtract", right=lambda c: (1.0, -c), left=lambda c: (-1.0, c)),
    ),
    (numpy_ops, "Multiply", _to_binary(tf.multiply, "Multiply", **_SCALE)),
    (numpy_ops, "Divide TrueDivide", _DIVIDE),
    (numpy_ops, "Maximum", _to_binary(tf.maximum, "Maximum")),
    (numpy_ops, "Minimum", _to_binary(tf.minimum, "Minimum")),
    (numpy_ops, "Mean", _to_reduction(tf.reduce_mean, "GlobalAveragePooling")),
    (numpy_ops, "Max", _to_reduction(tf.reduce_max, "GlobalMaxPooling")),
    (numpy_ops, "Min", _to_reduction(tf.reduce_min, None)),
    (numpy_ops, "Sum", _to_reduction(tf.reduce_sum, None)),
    (numpy_ops, "Concatenate", _to_concatenate),
    (numpy_ops, "Reshape", _to_reshape),
    (numpy_ops, "Transpose", _to_transpose),
    (numpy_ops, "Pad", _to_pad),
    (numpy_ops, "GetItem", _to_get_item),
    (numpy_ops, "Clip", _to_clip),
    (numpy_ops, "Tanh", _to_activation("tanh")),
    (numpy_ops, "Exp", _to_activation("exponential")),
    (numpy_ops, "Negative", _to_unary("Rescaling", scale=-1.0)),
    (numpy_ops, "Absolute", _to_function(tf.abs)),
    (numpy_ops, "Square", _to_function(tf.square)),
    (numpy_ops, "Sqrt", _to_function(tf.sqrt)),
    (nn_ops, "Relu", _to_unary("ReLU")),
    (nn_ops, "Relu6", _to_relu6),
    (nn_ops, "HardSigmoid", _to_hard_sigmoid),
    (nn_ops, "HardSilu", _to_hard_silu),
    (nn_ops, "LeakyRelu", lambda make, op, x: make("LeakyReLU", alpha=op.negative_slope)(x)),
    (nn_ops, "Elu", lambda make, op, x: make("ELU", alpha=op.alpha)(x)),
    (nn_ops, "Selu", _to_activation("selu")),
    (nn_ops, "Silu", _to_activation("swish")),
    (nn_ops, "Gelu", _to_gelu),
    (nn_ops, "Sigmoid", _to_activation("sigmoid")),
    (nn_ops, "Softplus", _to_activation("softplus")),
    (nn_ops, "Softsign", _to_activation("softsign")),
    (nn_ops, "Softmax", lambda make, op, x: make("Softmax", axis=op.axis)(x)),
    (nn_ops, "LogSoftmax", lambda make, op, x: tf.nn.log_softmax(x, op.axis)),
    (nn_ops, "MaxPool", _to_pool("MaxPooling")),
    (nn_ops, "AveragePool", _to_pool("AveragePooling")),
)

TO_KERAS_2: Mapping[type, Callable[..., Any]] = {
    getattr(home, name): emit
    for home, names, emit in _TO_KERAS_2
    for name in names.split()
    if hasattr(home, name)
}

# Activations that Keras 2 lacks, although it has layers that compute the same.
ACTIVATIONS_AS_LAYERS: Mapping[Any, Callable[..., Any]] = {
    keras.activations.relu6: _to_relu6,
    keras.activations.hard_sigmoid: _to_hard_sigmoid,
    keras.activations.hard_silu: _to_hard_silu,
    keras.activations.leaky_relu: _to_unary("LeakyReLU", alpha=0.2),
}


def to_keras_2(make: Make, operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Calls what replaces a `keras.ops` operation in a Keras 2 model.

    An operation that is not in the table is wrapped in a Lambda layer, which can
    be run but not saved.

    Args:
        make: function that is called as `make(class name, **configuration)` for a
            stock layer.
        operation: the Keras 3 operation.
        args: positional arguments of its call, with `tf_keras` tensors.
        kwargs: keyword arguments of its call, with `tf_keras` tensors.

    Returns:
        The result of the call, one or several `tf_keras` tensors.
    """
    if isinstance(operation, TensorFlowOp):
        return operation.call(*args, **kwargs)
    emit = TO_KERAS_2.get(type(operation))
    if emit is not None:
        return emit(make, operation, *args, **kwargs)
    leaves = keras.tree.flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if _is_tensor(leaf)]

    def function(tensors):
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        again, named = keras.tree.pack_sequence_as((args, kwargs), filled)
        return operation(*again, **named)

    return make("Lambda", function=function)([leaves[place] for place in places])
