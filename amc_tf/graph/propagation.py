"""How channel ids pass through a call, and how a call is rewritten for the channels kept.

Each function is the `connect` or `rewrite` of rows of the layer table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import activations
from keras import layers as kl

from amc_tf.graph.layer_rule import Connector, Ids, Refusal, Roles, Signal
from amc_tf.graph.network import Call, Value
from amc_tf.keras2.layers import keras2_hard_sigmoid

ELEMENTWISE_ACTIVATIONS = frozenset(
    getattr(activations, name)
    for name in [
        "relu",
        "leaky_relu",
        "relu6",
        "celu",
        "elu",
        "selu",
        "softplus",
        "softsign",
        "squareplus",
        "soft_shrink",
        "sparse_plus",
        "silu",
        "gelu",
        "tanh",
        "tanh_shrink",
        "threshold",
        "sigmoid",
        "exponential",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "hard_shrink",
        "linear",
        "mish",
        "log_sigmoid",
        "sparse_sigmoid",
    ]
    if hasattr(activations, name)
) | {keras2_hard_sigmoid}
ELEMENTWISE_LAYERS = frozenset({kl.ReLU, kl.LeakyReLU, kl.ELU})


def is_elementwise(activation: Any) -> bool:
    """Whether an activation treats every channel alone (softmax, for one, does not)."""
    if activation is None or type(activation) in ELEMENTWISE_LAYERS:
        return True
    try:
        return activation in ELEMENTWISE_ACTIVATIONS
    except TypeError:  # unhashable callables
        return False


def _activation_name(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)


def _check_activation(c: Connector, operation: Any, out: Ids) -> None:
    activation = getattr(operation, "activation", None)
    if not is_elementwise(activation):
        c.freeze(
            out,
            f"activation {_activation_name(activation)!r} of {operation.name!r} mixes channels",
        )


def _check_kernel(layer: Any) -> None:
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Refusal("its kernel is quantised or carries LoRA weights")


def mixer(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Convolutions and Dense: every output channel reads every input channel."""
    layer, (x,) = call.operation, inputs
    _check_kernel(layer)
    out = c.fresh(out_shape[-1])
    _check_activation(c, layer, out)
    return {"in": x.ids, "out": out}


def within_groups(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Grouped convolution that keeps its groups: each loses the same positions."""
    layer, (x,) = call.operation, inputs
    _check_kernel(layer)
    parts = x.ids.reshape(layer.groups, -1)
    for other in parts[1:]:
        c.unite(parts[0], other)
    out = np.tile(c.fresh(out_shape[-1] // layer.groups), layer.groups)
    _check_activation(c, layer, out)
    return {"in": x.ids, "part": parts[0], "out": out}


def whole_groups(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Grouped convolution that loses whole groups: their inputs with their outputs."""
    layer, (x,) = call.operation, inputs
    _check_kernel(layer)
    block = _blocks(c, x.ids, layer.groups)
    out = np.repeat(block, out_shape[-1] // layer.groups)
    _check_activation(c, layer, out)
    return {"in": x.ids, "block": block, "out": out}


def _blocks(c: Connector, ids: Ids, count: int) -> Ids:
    """Ties the ids of each of `count` neighbouring blocks together; one id for each block."""
    block = ids.reshape(count, -1)
    c.unite(np.repeat(block[:, 0], block.shape[1]), ids)
    return block[:, 0]


def is_dense(layer: Any) -> bool:
    """Whether an EinsumDense is a Dense in other words: `ab,bc->ac`, `...x,xy->...y`."""
    operands, result = layer.equation.replace(" ", "").split("->")
    x, kernel = operands.split(",")
    return (
        len(kernel) == 2
        and x == result[:-1] + kernel[0]
        and result[-1] == kernel[1]
        and kernel[1] not in x
        and layer.bias_axes in (None, kernel[1])
    )


def refused(reason: str) -> Callable[..., Roles]:
    """The `connect` of a class that is known, and known not to be prunable through."""

    def connect(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
        raise Refusal(reason)

    return connect


def depthwise(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keras lays the multiplier innermost: output channel i*multiplier+j reads channel i."""
    (x,) = inputs
    out = np.repeat(x.ids, call.operation.depth_multiplier)
    _check_activation(c, call.operation, out)
    return {"in": x.ids, "out": out}


def separable(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """A depthwise kernel, then a pointwise one."""
    (x,) = inputs
    out = c.fresh(out_shape[-1])
    _check_activation(c, call.operation, out)
    return {"in": x.ids, "mid": np.repeat(x.ids, call.operation.depth_multiplier), "out": out}


def same(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Every channel alone, positions of the channel axis unchanged."""
    (x,) = inputs
    if out_shape[-1] != len(x.ids):
        raise Refusal("it changes the channel axis")
    return {"in": x.ids, "out": x.ids}


def activation(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """By the function it holds."""
    activation = call.operation.activation
    if activation in (activations.softmax, activations.log_softmax):
        return softmax(c, call, inputs, out_shape)
    if not is_elementwise(activation):
        name = _activation_name(activation)
        raise Refusal(f"activation {name!r} is not known to treat each channel alone")
    return same(c, call, inputs, out_shape)


def softmax(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Each output depends on all channels: they stay, and stay what they are."""
    if _covers_channels(getattr(call.operation, "axis", -1), len(out_shape)):
        c.freeze(inputs[0].ids, f"softmax {call.operation.name!r} mixes channels")
    return same(c, call, inputs, out_shape)


def channel_statistics(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Layer, RMS and unit normalisation: over other axes exact, over channels frozen."""
    if _covers_channels(call.operation.axis, len(out_shape)):
        c.freeze(
            inputs[0].ids,
            f"{call.operation.name!r} normalises by statistics over the channels, which change "
            "with any channel dropped",
        )
    elif getattr(call.operation, "weights", ()):
        raise Refusal("its weights belong to positions, not to channels")
    return same(c, call, inputs, out_shape)


def group_norm(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Exact by whole groups, each of which has its own statistics (instance norm: by channels)."""
    layer, (x,) = call.operation, inputs
    if layer.axis not in (-1, len(out_shape) - 1):
        raise Refusal(f"it normalises axis {layer.axis}, not the last one")
    return {"in": x.ids, "block": _blocks(c, x.ids, layer.groups), "out": x.ids}


def _covers_channels(axis: Any, rank: int) -> bool:
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return any(a is None or a % rank == rank - 1 for a in axes)


def normalization(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """By statistics that were fixed beforehand."""
    layer = call.operation
    if layer.axis not in ((-1,), (len(out_shape) - 1,)):
        raise Refusal(f"it normalises axes {layer.axis}, not the last one alone")
    if layer.input_mean is not None:
        # Its statistics sit in its configuration, where no weight can be sliced.
        c.freeze(inputs[0].ids, f"the mean and variance of {layer.name!r} are fixed by its maker")
    return same(c, call, inputs, out_shape)


def batch_norm(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Every channel by its own statistics."""
    axis = call.operation.axis
    if axis not in (-1, len(out_shape) - 1):
        raise Refusal(f"it normalises axis {axis}, not the last one")
    return same(c, call, inputs, out_shape)


def prelu(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """One slope for each channel."""
    if len(out_shape) - 1 in (call.operation.shared_axes or ()):
        raise Refusal("its slopes are shared over the channel axis")
    return same(c, call, inputs, out_shape)


def rescaling(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """The same factor and offset for all channels."""
    layer = call.operation
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        raise Refusal("its scale or offset differs from channel to channel")
    return same(c, call, inputs, out_shape)


def merge(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Elementwise operation of several tensors, broadcasting as numpy does."""
    for argument in (*call.args, *call.kwargs.values()):
        several = isinstance(argument, (list, tuple)) and all(
            isinstance(a, Value) for a in argument
        )
        if not (several or isinstance(argument, Value) or np.ndim(argument) == 0):
            raise Refusal("one of its operands is a constant array")
    width = out_shape[-1]
    wide = [x for x in inputs if len(x.ids) == width]
    for x in inputs:
        if len(x.ids) != width:
            # One map that scales every channel (spatial attention): it must stay as it is.
            c.freeze(x.ids, f"broadcast over all channels by {call.operation.name!r}")
    for x in wide[1:]:
        c.unite(wide[0].ids, x.ids)
    return {"in": wide[0].ids, "out": wide[0].ids}


def concatenate(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Ids one after another; along other axes, channels live and die together."""
    if call.operation.axis in (-1, len(out_shape) - 1):
        ids = np.concatenate([x.ids for x in inputs])
        return {"in": ids, "out": ids}
    for x in inputs[1:]:
        c.unite(inputs[0].ids, x.ids)
    return {"in": inputs[0].ids, "out": inputs[0].ids}


def reduce(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Over positions."""
    rank = len(inputs[0].shape)
    axis = call.operation.axis
    axes = [axis] if isinstance(axis, int) else axis
    if axes is None or any(a % rank in (0, rank - 1) for a in axes):
        raise Refusal("it reduces the batch or the channel axis")
    return same(c, call, inputs, out_shape)


def reshape(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Allowed where rows of the result hold whole channel vectors, one or several of them.

    Memory order is row-major, so a last axis of k times the channels holds the
    channels of k neighbouring positions one after another.
    """
    (x,) = inputs
    repeats, rest = divmod(out_shape[-1], len(x.ids))
    if rest:
        raise Refusal(
            f"it reshapes {x.shape} to {tuple(out_shape)}, which cuts the channel axis up"
        )
    return {"in": x.ids, "out": np.tile(x.ids, repeats)}


def flatten(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Row-major, or with axis 1 moved last before (`data_format="channels_first"`)."""
    (x,) = inputs
    sizes = [size for size in x.shape[1:] if size is not None]
    if len(sizes) < len(x.shape) - 1:
        raise Refusal("the size of its input is not fixed")
    grid = np.broadcast_to(x.ids, sizes)
    if call.operation.data_format == "channels_first":
        grid = np.moveaxis(grid, 0, -1)
    return {"in": x.ids, "out": grid.ravel()}


def squeeze(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Drops axes of size 1."""
    axis, rank = call.operation.axis, len(inputs[0].shape)
    if axis is None or _covers_channels(axis, rank):
        raise Refusal(f"it may drop the channel axis (axis={axis})")
    return same(c, call, inputs, out_shape)


def expand_dims(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Adds axes of size 1 before the channels."""
    if _covers_channels(call.operation.axis, len(out_shape)):
        raise Refusal("it adds an axis behind the channels")
    return same(c, call, inputs, out_shape)


def transpose(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Moves axes, neither batch nor channels."""
    axes, last = call.operation.axes, len(out_shape) - 1
    if axes is None or axes[0] != 0 or axes[-1] % (last + 1) != last:
        raise Refusal("it moves the batch or the channel axis")
    return same(c, call, inputs, out_shape)


def stack(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """A new axis before the channels: every operand has the same channels."""
    if _covers_channels(call.operation.axis, len(out_shape)):
        raise Refusal("it stacks behind the channels")
    for x in inputs[1:]:
        c.unite(inputs[0].ids, x.ids)
    return {"in": inputs[0].ids, "out": inputs[0].ids}


def split(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Several outputs, each with its part of the channels, or with all of them."""
    (x,) = inputs
    sections = call.operation.indices_or_sections
    outputs = len(call.outputs)
    if _covers_channels(call.operation.axis, len(x.shape)):
        parts = np.split(x.ids, sections)
    else:
        parts = [x.ids] * outputs
    return {"in": x.ids, **{output_role(i): part for i, part in enumerate(parts)}}


def output_role(number: int) -> str:
    """The role of a call's `number`-th output."""
    return f"out{number}" if number else "out"


def rewrite_split(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """Splits where the kept channels of each part end."""
    operation = call.operation
    ends: Any = operation.indices_or_sections
    if _covers_channels(operation.axis, rank):
        parts = [kept[output_role(i)] for i in range(len(call.outputs))]
        ends = np.cumsum([np.count_nonzero(part) for part in parts])[:-1].tolist()
    return lambda x, *_, **__: keras.ops.split(x, ends, axis=operation.axis)


def permute(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Moves axes before the channels."""
    if call.operation.dims[-1] != len(out_shape) - 1:
        raise Refusal("it moves the channel axis")
    return same(c, call, inputs, out_shape)


def get_item(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """A contiguous slice of the channels."""
    (x,) = inputs
    channel_key = _split_key(call, len(x.shape))[1]
    if not isinstance(channel_key, slice) or channel_key.step not in (None, 1):
        raise Refusal(f"it takes channels by {channel_key!r}, not by a contiguous slice")
    return {"in": x.ids, "out": x.ids[channel_key]}


def _split_key(call: Call, rank: int) -> tuple[list, Any]:
    """The key of a slice, spelled out for `rank` axes: (all axes but channels, channels)."""
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(isinstance(k, Value) or np.ndim(k) for k in key if k is not Ellipsis):
        raise Refusal("its index is a tensor or an array")
    used = sum(k is not None and k is not Ellipsis for k in key)
    missing = [slice(None)] * (rank - used)
    at = next((i for i, k in enumerate(key) if k is Ellipsis), None)
    key = key + missing if at is None else key[:at] + missing + key[at + 1 :]
    if key[-1] is None:
        raise Refusal("it adds an axis behind the channels")
    return key[:-1], key[-1]


def rewrite_get_item(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """The slice of what is left."""
    before, channels = _split_key(call, rank)
    start, stop, _ = channels.indices(len(kept["in"]))
    low, high = (int(np.count_nonzero(kept["in"][:end])) for end in (start, stop))
    return lambda x, *_, **__: x[(*before, slice(low, high))]


def pad(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Channels added by zero padding (ResNet's parameter-free shortcut) are channels too."""
    (x,) = inputs
    operation = call.operation
    before, after = _pad_width(operation, len(x.shape))[-1]
    if operation.mode != "constant" and (before or after):
        raise Refusal(f"it pads the channel axis with mode {operation.mode!r}")
    return {"in": x.ids, "out": np.concatenate([c.fresh(before), x.ids, c.fresh(after)])}


def _pad_width(operation: Any, rank: int) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in np.broadcast_to(operation.pad_width, (rank, 2))]


def rewrite_pad(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """As much padding as is kept."""
    operation = call.operation
    width = _pad_width(operation, rank)
    before, after = width[-1]
    out = kept["out"]
    width[-1] = (
        int(np.count_nonzero(out[:before])),
        int(np.count_nonzero(out[len(out) - after :])),
    )
    return lambda x, *_, **kwargs: keras.ops.pad(x, width, mode=operation.mode, **kwargs)


def rewrite_reshape(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """The same layer with another last axis."""
    layer = call.operation
    target = (*layer.target_shape[:-1], int(np.count_nonzero(kept["out"])))
    return kl.Reshape(target, name=layer.name, dtype=layer.dtype_policy)


def rewrite_reshape_op(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    """The same operation with another last axis."""
    target = (*call.operation.newshape[:-1], int(np.count_nonzero(kept["out"])))
    return lambda x, *_, **__: keras.ops.reshape(x, target)
