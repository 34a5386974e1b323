"""What the rebuilt model calls instead of operations whose arguments name positions.

Each `rewrite_` function is the `rewrite` of rows of the layer table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from amc_tf.graph.layer_rule import Refusal, covers_channels, output_role
from amc_tf.graph.network import Call, Value


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
    """Makes the same layer with the kept channels in the last axis."""
    layer = call.operation
    target = (*layer.target_shape[:-1], int(np.count_nonzero(kept["out"])))
    return kl.Reshape(target, name=layer.name, dtype=layer.dtype_policy)


def rewrite_reshape_op(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Calls the same operation with the kept channels in the last axis."""
    target = (*call.operation.newshape[:-1], int(np.count_nonzero(kept["out"])))
    return lambda x, *_, **__: keras.ops.reshape(x, target)
