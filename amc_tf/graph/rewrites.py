"""What the rebuilt model calls instead of operations whose arguments name positions.

Each `rewrite_` function is the `rewrite` of rows of the layer table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from amc_tf.graph.keras_structure import made_by, twin
from amc_tf.graph.layer_rule import Refusal, covers_channels, output_role, roles_of_axes
from amc_tf.graph.network import Call, Value
from amc_tf.graph.output_specs import is_plain


def rewrite_split(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Splits where the kept channels of each part end."""
    operation = call.operation
    ends: Any = operation.indices_or_sections
    if covers_channels(operation.axis, rank):
        parts = [kept[output_role(i)] for i in range(len(call.outputs))]
        ends = np.cumsum([np.count_nonzero(part) for part in parts])[:-1].tolist()
    return lambda x, *_, **__: keras.ops.split(x, ends, axis=operation.axis)


def split_key(call: Call, rank: int) -> tuple[list, Any]:
    """Returns the key of a slice, written out for `rank` axes: (axes before channels, channels)."""
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(isinstance(k, Value) or np.ndim(k) for k in key if k is not Ellipsis):
        raise Refusal("its index is a tensor or an array")
    used = sum(k is not None and k is not Ellipsis for k in key)
    missing = [slice(None)] * (rank - used)
    at = next((i for i, k in enumerate(key) if k is Ellipsis), None)
    key = key + missing if at is None else key[:at] + missing + key[at + 1 :]
    if key[-1] is None:
        raise Refusal("it adds an axis after the channels")
    return key[:-1], key[-1]


def rewrite_get_item(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Slices the kept channels that are in the original slice."""
    before, channels = split_key(call, rank)
    start, stop, _ = channels.indices(len(kept["in"]))
    low, high = (int(np.count_nonzero(kept["in"][:end])) for end in (start, stop))
    return lambda x, *_, **__: x[(*before, slice(low, high))]


def pad_width(operation: Any, rank: int) -> list[tuple[int, int]]:
    """Returns the padding before and after each axis."""
    return [(int(a), int(b)) for a, b in np.broadcast_to(operation.pad_width, (rank, 2))]


def rewrite_pad(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Pads the channel axis by as many channels as are kept of the padding."""
    operation = call.operation
    width = pad_width(operation, rank)
    before, after = width[-1]
    out = kept["out"]
    width[-1] = (
        int(np.count_nonzero(out[:before])),
        int(np.count_nonzero(out[len(out) - after :])),
    )
    return lambda x, *_, **kwargs: keras.ops.pad(x, width, mode=operation.mode, **kwargs)


def rewrite_reshape(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Makes the same layer with the kept channels in the axes that hold channels."""
    layer = call.operation
    return kl.Reshape(_resized(layer.target_shape, kept), name=layer.name, dtype=layer.dtype_policy)


def rewrite_reshape_op(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Calls the same operation with the kept channels in the axes that hold channels."""
    target = _resized(call.operation.newshape, kept)
    return lambda x, *_, **__: keras.ops.reshape(x, target)


def rewrite_attention(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Computes attention with the scale of the dense network.

    Keras gives the result of its operation the width of the queries, where that of the values may
    differ by now; so it is spelt out in other operations then.
    """
    operation = call.operation
    queries, values = (np.count_nonzero(kept[role]) for role in ("sum:width", "out"))
    own = inspect.signature(operation.call)

    def attend(*args: Any, **kwargs: Any) -> Any:
        given = own.bind(*args, **kwargs)
        scale = given.arguments.get("scale")
        if scale is None:
            scale = len(kept["sum:width"]) ** -0.5
        if queries == values or not is_plain(operation, given.arguments):
            given.arguments["scale"] = scale
            return twin(operation)(*given.args, **given.kwargs)
        query, key, value = (given.arguments[name] for name in ("query", "key", "value"))
        scaled = _named(keras.ops.multiply(query, float(scale)), f"{operation.name}_scaled")
        scores = keras.ops.einsum("btnh,bsnh->bnts", scaled, key)
        _named(scores, f"{operation.name}_scores")
        if scores.dtype != "float32":  # in which Keras takes the softmax, whatever it reads
            scores = _named(keras.ops.cast(scores, "float32"), f"{operation.name}_exact")
        shares = _named(keras.ops.softmax(scores), f"{operation.name}_shares")
        if shares.dtype != value.dtype:
            shares = _named(keras.ops.cast(shares, value.dtype), f"{operation.name}_cast")
        return keras.ops.einsum("bnts,bsnh->btnh", shares, value)

    return attend


def _named(tensor: Any, name: str) -> Any:
    """Names the operation that made a tensor, where Keras might choose one that is taken."""
    if isinstance(tensor, keras.KerasTensor):
        made_by(tensor).name = name
    return tensor


def _resized(shape: Sequence[Any], kept: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    """Returns a target shape with as many positions as are kept; -1 stays before the last axis."""
    sizes = list(shape)
    sizes[-1] = int(np.count_nonzero(kept["out"])) or sizes[-1]
    for axis, role in roles_of_axes(kept, "out").items():
        if sizes[axis] != -1:
            sizes[axis] = int(np.count_nonzero(kept[role]))
    return tuple(sizes)
