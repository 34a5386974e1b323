"""TensorFlow calls in Keras 2 models as `keras.ops` of Keras 3.

Keras 2 hides `x + y`, `tf.nn.relu(x)` or `x[:, 1:]` in layers that hold a
TensorFlow function. The table gives the `keras.ops` function that computes the
same; any other TensorFlow function becomes a `TensorFlowOp`, which the channel
analysis does not understand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from amc_tf.graph.keras_structure import made_by
from amc_tf.keras2.tensorflow_op import TensorFlowOp, Unlisted, dtype_of, is_symbolic


def _static(x: Any) -> Any:
    """Converts a shape, axis or slice bound to Python numbers."""
    if any(is_symbolic(leaf) for leaf in keras.tree.flatten(x)):
        raise Unlisted
    numbers = keras.tree.map_structure(
        lambda leaf: (
            np.asarray(leaf).tolist() if tf.is_tensor(leaf) or hasattr(leaf, "shape") else leaf
        ),
        x,
    )
    return list(numbers) if isinstance(numbers, tuple) else numbers


def _operand(x: Any, other: Any) -> Any:
    """Converts a constant to the type of the other operand, as TensorFlow does."""
    if isinstance(x, (int, float)) or not isinstance(other, keras.KerasTensor) or is_symbolic(x):
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
    """Makes a slice from the dictionary that Keras 2 records for it in a layer's arguments.

    Scalar tensors become Python numbers; other values are returned unchanged.
    """
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
    """Resizes by whole factors with UpSampling2D, which the layer table knows."""
    old, new = tuple(images.shape)[1:-1], _static(size)
    if len(old) != 2 or None in old or any(b % a for a, b in zip(old, new, strict=True)):
        raise Unlisted
    if method not in ("bilinear", "nearest") or preserve_aspect_ratio or antialias:
        raise Unlisted
    factors = tuple(b // a for a, b in zip(old, new, strict=True))
    return keras.layers.UpSampling2D(
        factors, data_format="channels_last", interpolation=method, dtype=dtype_of(images)
    )(images)


# Name in TensorFlow's API -> function that takes the same arguments by the same names.
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
    """Returns what a Keras 3 model calls instead of a layer that holds a TensorFlow function.

    Args:
        layer: a `TFOpLambda` or `SlicingOpLambda`.
        outputs: result of the layer's call: one `tf_keras` tensor or several.
        name: name of the operation that replaces the layer.
    """

    def invoke(*args, **kwargs):
        kwargs = {key: value for key, value in kwargs.items() if key != "name"}
        twin = FROM_KERAS_2.get(layer.symbol)
        try:
            if twin is None:
                raise Unlisted
            out = twin(*args, **kwargs)
            given = [id(x) for x in keras.tree.flatten((args, kwargs))]
            if is_symbolic(out) and id(out) not in given:
                # The name that Keras 3 generates may be the name of another layer.
                made_by(out).name = name
            return out
        except Unlisted:
            args, kwargs = _slices((args, kwargs))
            return TensorFlowOp(layer.symbol, _outputs_like(outputs), name)(*args, **kwargs)

    return invoke


def _slices(x: Any) -> Any:
    """Replaces the dictionaries that stand for slices in arguments by slices."""
    if isinstance(x, dict) and set(x) != {"start", "stop", "step"}:
        return {key: _slices(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(_slices(value) for value in x)
    return slice_of(x)


def _outputs_like(outputs: Any) -> list:
    if isinstance(outputs, (list, tuple)):
        return [_outputs_like(output) for output in outputs]
    return [list(outputs.shape), outputs.dtype.name]
