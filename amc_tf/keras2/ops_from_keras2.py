"""Operations without a layer of their own: TensorFlow calls in Keras 2, `keras.ops` in Keras 3.

Keras 2 hides `x + y`, `tf.nn.relu(x)` or `x[:, 1:]` in layers that hold a
TensorFlow function. One table gives their `keras.ops` twins; any other
TensorFlow function becomes a `TensorFlowOp`, of which the channel analysis
knows nothing. The other table gives, for `keras.ops`, stock Keras 2 layers
wherever one computes the same, because tools for Keras 2 models know only these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.ops import nn as nn_ops
from keras.src.ops import numpy as numpy_ops
from tensorflow.python.util import tf_export

from amc_tf.keras2.safety import only_computes


class Unlisted(Exception):
    """This call of a listed operation cannot be said by its twin."""


@keras.saving.register_keras_serializable(package="amc_tf")
class TensorFlowOp(keras.Operation):
    """A public TensorFlow function as an operation of a Keras 3 model.

    Args:
        function: its name in TensorFlow's API, without `tf.`.
        outputs: (shape, dtype) of every output; a single pair if the function
            gives a tensor rather than a list. Keras 3 cannot always infer them.
        name: of the operation.

    Raises:
        ValueError: the function may do more than compute: a file of a model must not
            write other files, say.
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
        """The recorded shapes and types."""
        if isinstance(self.outputs_like[1], str):
            return _spec(self.outputs_like)
        return [_spec(output) for output in self.outputs_like]

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {"function": self.function, "outputs": self.outputs_like, "name": self.name}


def _spec(output: Any) -> keras.KerasTensor:
    shape, dtype = output
    return keras.KerasTensor(tuple(shape), dtype)


# --- Keras 2 to 3 --------------------------------------------------------------------------
# Keys are names of TensorFlow's API, values take what those functions take, by the same names.


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


def _static(x: Any) -> Any:
    """A shape, axis or slice bound as Python numbers."""
    if any(_is_symbolic(leaf) for leaf in keras.tree.flatten(x)):
        raise Unlisted
    leaves_out = keras.tree.map_structure(
        lambda leaf: (
            np.asarray(leaf).tolist() if tf.is_tensor(leaf) or hasattr(leaf, "shape") else leaf
        ),
        x,
    )
    return list(leaves_out) if isinstance(leaves_out, tuple) else leaves_out


def _operand(x: Any, other: Any) -> Any:
    """A constant in the type of the tensor it meets, as TensorFlow would take it."""
    if isinstance(x, (int, float)) or not isinstance(other, keras.KerasTensor) or _is_symbolic(x):
        return x
    value = np.asarray(x)
    return value.item() if value.ndim == 0 else value.astype(other.dtype)


def _binary(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: operation(_operand(x, y), _operand(y, x))


def _reduction(operation: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(input_tensor, axis=None, keepdims=False):
        axis = _static(axis)
        axis = tuple(axis) if isinstance(axis, list) else axis
        return operation(input_tensor, axis=axis, keepdims=bool(keepdims))

    return reduce


def _silu(features, beta=1.0):
    if beta != 1.0:
        raise Unlisted
    return ops.silu(features)


def _concat(values, axis):
    return ops.concatenate(list(values), axis=_static(axis))


def _getitem(tensor, slice_spec, var=None):
    key = list(slice_spec) if isinstance(slice_spec, (list, tuple)) else [slice_spec]
    key = [slice_of(k) for k in key]
    bounds = [b for k in key for b in ((k.start, k.stop, k.step) if isinstance(k, slice) else [k])]
    if not all(b is None or b is Ellipsis or isinstance(b, (int, np.integer)) for b in bounds):
        raise Unlisted
    return tensor[tuple(key)]


def slice_of(x: Any) -> Any:
    """Keras 2 keeps slices as dictionaries in what a layer was called with."""
    if isinstance(x, dict) and set(x) == {"start", "stop", "step"}:
        return slice(*(_plain_number(x[k]) for k in ("start", "stop", "step")))
    return _plain_number(x)


def _plain_number(x: Any) -> Any:
    return np.asarray(x).item() if isinstance(x, tf.Tensor) and x.shape.rank == 0 else x


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0):
    fill = {} if mode.upper() != "CONSTANT" else {"constant_values": _static(constant_values)}
    return ops.pad(tensor, _static(paddings), mode=mode.lower(), **fill)


def _pad_v1(tensor, paddings, mode="CONSTANT", name=None, constant_values=0):
    return _pad(tensor, paddings, mode, constant_values)


def _pool(operation: Callable[..., Any]) -> Callable[..., Any]:
    def pool(input, ksize, strides, padding, data_format="NHWC"):
        if data_format != "NHWC" or not isinstance(padding, str):
            raise Unlisted
        size, strides = (np.broadcast_to(_static(n), 2).tolist() for n in (ksize, strides))
        return operation(input, tuple(size), tuple(strides), padding.lower())

    return pool


def _resize(images, size, method="bilinear", preserve_aspect_ratio=False, antialias=False):
    """By a whole number, a layer of the channel table does the same."""
    old, new = tuple(images.shape)[1:-1], _static(size)
    if len(old) != 2 or None in old or any(b % a for a, b in zip(old, new, strict=True)):
        raise Unlisted
    if method not in ("bilinear", "nearest") or preserve_aspect_ratio or antialias:
        raise Unlisted
    factors = tuple(b // a for a, b in zip(old, new, strict=True))
    return keras.layers.UpSampling2D(
        factors, data_format="channels_last", interpolation=method, dtype=_dtype(images)
    )(images)


FROM_KERAS_2: Mapping[str, Callable[..., Any]] = {
    "__operators__.add": _binary(ops.add),
    "math.add": _binary(ops.add),
    "math.subtract": _binary(ops.subtract),
    "math.multiply": _binary(ops.multiply),
    "math.truediv": _binary(ops.true_divide),
    "math.divide": _binary(ops.true_divide),
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "nn.relu": lambda features: ops.relu(features),
    "nn.relu6": lambda features: ops.relu6(features),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, _static(alpha)),
    "nn.elu": lambda features: ops.elu(features),
    "nn.selu": lambda features: ops.selu(features),
    "nn.silu": _silu,
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.softsign": lambda features: ops.softsign(features),
    "nn.softmax": lambda logits, axis=None: ops.softmax(logits, -1 if axis is None else axis),
    "nn.log_softmax": lambda logits, axis=None: ops.log_softmax(
        logits, -1 if axis is None else axis
    ),
    "nn.max_pool2d": _pool(ops.max_pool),
    "nn.avg_pool2d": _pool(ops.average_pool),
    "math.softplus": lambda features: ops.softplus(features),
    "math.sigmoid": lambda x: ops.sigmoid(x),
    "math.tanh": lambda x: ops.tanh(x),
    "math.exp": lambda x: ops.exp(x),
    "math.abs": lambda x: ops.absolute(x),
    "math.negative": lambda x: ops.negative(x),
    "math.square": lambda x: ops.square(x),
    "math.sqrt": lambda x: ops.sqrt(x),
    "math.reduce_mean": _reduction(ops.mean),
    "math.reduce_sum": _reduction(ops.sum),
    "math.reduce_max": _reduction(ops.max),
    "math.reduce_min": _reduction(ops.min),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(
        t, _static(clip_value_min), _static(clip_value_max)
    ),
    "concat": _concat,
    "reshape": lambda tensor, shape: ops.reshape(tensor, tuple(_static(shape))),
    "__operators__.getitem": _getitem,
    "pad": _pad,
    "compat.v1.pad": _pad_v1,
    "image.resize": _resize,
    "identity": lambda input: input,
}


def from_keras_2(layer: Any, outputs: Any, name: str) -> Callable[..., Any]:
    """What a Keras 3 model calls in the place of a Keras 2 layer that holds a TensorFlow function.

    Args:
        layer: a `TFOpLambda` or `SlicingOpLambda`.
        outputs: what its call gave: a `tf_keras` tensor or several.
        name: of the operation that takes the layer's place.
    """

    def invoke(*args, **kwargs):
        kwargs = {key: value for key, value in kwargs.items() if key != "name"}
        twin = FROM_KERAS_2.get(layer.symbol)
        try:
            if twin is None:
                raise Unlisted
            out = twin(*args, **kwargs)
            given = [id(x) for x in keras.tree.flatten((args, kwargs))]
            if _is_symbolic(out) and id(out) not in given:
                # Keras 3 would count up a name that one of the layers may have.
                out._keras_history.operation.name = name
            return out
        except Unlisted:
            args, kwargs = _slices((args, kwargs))
            return TensorFlowOp(layer.symbol, _outputs_like(outputs), name)(*args, **kwargs)

    return invoke


def _slices(x: Any) -> Any:
    """The same arguments with slices in the place of the dictionaries that stand for them."""
    if isinstance(x, dict) and set(x) != {"start", "stop", "step"}:
        return {key: _slices(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(_slices(value) for value in x)
    return slice_of(x)


def _outputs_like(outputs: Any) -> list:
    if isinstance(outputs, (list, tuple)):
        return [_outputs_like(output) for output in outputs]
    return [list(outputs.shape), outputs.dtype.name]


# --- Keras 3 to 2 --------------------------------------------------------------------------
# Each function is called as f(make, operation, *args, **kwargs), the arguments being those of the
# operation's call; `make(class name, **configuration)` gives a new stock layer with its name and
# type.

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
    """Of two tensors: the layer `kind`; of a tensor and a number: a scale and an offset.

    Layers that merge align axes otherwise than numpy where ranks differ, and
    want one batch size; elsewhere the TensorFlow function stands in.
    """

    def emit(make: Make, operation: Any, x: Any, y: Any) -> Any:
        tensors = [t for t in (x, y) if _is_tensor(t)]
        floating = all(keras.backend.is_float_dtype(_dtype(t)) for t in tensors)
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


def _dtype(tensor: Any) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


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
    if low == 0 and _is_scalar(high) and keras.backend.is_float_dtype(_dtype(x)):
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
# Activations that Keras 2 does not have, but has layers for.
ACTIVATIONS_AS_LAYERS: Mapping[Any, Callable[..., Any]] = {
    keras.activations.relu6: _to_relu6,
    keras.activations.hard_sigmoid: _to_hard_sigmoid,
    keras.activations.hard_silu: _to_hard_silu,
    keras.activations.leaky_relu: _to_unary("LeakyReLU", alpha=0.2),
}


def to_keras_2(make: Make, operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Calls what stands for a `keras.ops` operation in a Keras 2 model.

    An operation without a stock layer or a TensorFlow function in the table is
    wrapped in a Lambda layer: it computes, but a file cannot hold it.

    Args:
        make: called as `make(class name, **configuration)` for a stock layer.
        operation: the Keras 3 operation.
        args: arguments of its call, with `tf_keras` tensors.
        kwargs: likewise.
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
