"""How channel ids pass through a call.

Each function is the `connect` of rows of the layer table, or makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from keras import activations

from amc_tf.graph.activations import activation_name
from amc_tf.graph.layer_rule import (
    Connector,
    Refusal,
    Roles,
    Signal,
    covers_channels,
    only,
    output_role,
    tie_blocks,
)
from amc_tf.graph.network import Call, Value
from amc_tf.graph.probing import mixing
from amc_tf.graph.rewrites import pad_width, split_key


def refused(reason: str) -> Callable[..., Roles]:
    """Makes the `connect` of a class that is known but cannot be pruned through."""

    def connect(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
        raise Refusal(reason)

    return connect


def same(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself, at the same position."""
    x = only(inputs)
    if out_shape[-1] != len(x.ids):
        raise Refusal("it changes the channel axis")
    return {"in": x.ids, "out": x.ids}


def activation(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes channels on as the function of an Activation layer allows."""
    activation = call.operation.activation
    if activation in (activations.softmax, activations.log_softmax):
        return softmax(c, call, inputs, out_shape)
    reason = mixing(activation, out_shape)
    if reason:
        raise Refusal(f"activation {activation_name(activation)!r} {reason}")
    return same(c, call, inputs, out_shape)


def parameter(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes new ids: the weight is what its readers say, and nothing of the input is in it."""
    return {"out": c.fresh(out_shape[-1])}


def softmax(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Freezes the channels if softmax is taken over them: each output depends on them all."""
    if covers_channels(getattr(call.operation, "axis", -1), len(out_shape)):
        c.freeze(inputs[0].ids, f"softmax {call.operation.name!r} mixes channels")
    return same(c, call, inputs, out_shape)


def channel_statistics(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Freezes the channels of layer, RMS and unit normalisation if these normalise over them.

    Normalisation over other axes is exact in each channel.
    """
    if covers_channels(call.operation.axis, len(out_shape)):
        c.freeze(
            inputs[0].ids,
            f"{call.operation.name!r} normalises by statistics over the channels, which change "
            "with any channel dropped",
        )
    elif getattr(call.operation, "weights", ()):
        raise Refusal("its weights belong to positions, not to channels")
    return same(c, call, inputs, out_shape)


def group_norm(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Unites the channels of each group of the layer, as each group has its own statistics.

    In an instance norm each channel is a group.
    """
    layer, x = call.operation, only(inputs)
    if layer.axis not in (-1, len(out_shape) - 1):
        raise Refusal(f"it normalises axis {layer.axis}, not the last one")
    return {"in": x.ids, "block": tie_blocks(c, x.ids, layer.groups), "out": x.ids}


def normalization(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself, if the statistics are weights that can be sliced."""
    layer = call.operation
    if layer.axis not in ((-1,), (len(out_shape) - 1,)):
        raise Refusal(f"it normalises axes {layer.axis}, not the last one alone")
    if layer.input_mean is not None:
        # The statistics are in the layer's configuration, where they cannot be sliced.
        c.freeze(inputs[0].ids, f"the mean and variance of {layer.name!r} are in its configuration")
    return same(c, call, inputs, out_shape)


def batch_norm(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself, as each has its own statistics."""
    axis = call.operation.axis
    if axis not in (-1, len(out_shape) - 1):
        raise Refusal(f"it normalises axis {axis}, not the last one")
    return same(c, call, inputs, out_shape)


def prelu(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself, as each has its own slope."""
    if len(out_shape) - 1 in (call.operation.shared_axes or ()):
        raise Refusal("its slopes are shared over the channel axis")
    return same(c, call, inputs, out_shape)


def rescaling(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself, as all have the same factor and offset."""
    layer = call.operation
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        raise Refusal("its scale or offset differs from channel to channel")
    return same(c, call, inputs, out_shape)


def merge(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Unites the channels of the operands of an elementwise operation that broadcasts as NumPy."""
    for argument in (*call.args, *call.kwargs.values()):
        several = isinstance(argument, (list, tuple)) and all(
            isinstance(a, Value) for a in argument
        )
        if not (several or isinstance(argument, Value) or np.ndim(argument) == 0):
            raise Refusal("one of its operands is a constant array")
    width = out_shape[-1]
    wide = [x for x in inputs if len(x.ids) == width]
    if not wide:
        raise Refusal("it changes the channel axis")
    for x in inputs:
        if len(x.ids) != width:
            # One map that scales every channel (spatial attention): it must stay.
            c.freeze(x.ids, f"broadcast over all channels by {call.operation.name!r}")
    for x in wide[1:]:
        c.unite(wide[0].ids, x.ids)
    return {"in": wide[0].ids, "out": wide[0].ids}


def concatenate(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Concatenates ids along the channel axis; unites the operands' channels along other axes."""
    if call.operation.axis in (-1, len(out_shape) - 1):
        ids = np.concatenate([x.ids for x in inputs])
        return {"in": ids, "out": ids}
    for x in inputs[1:]:
        c.unite(inputs[0].ids, x.ids)
    return {"in": inputs[0].ids, "out": inputs[0].ids}


def reduce(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself through a reduction over positions."""
    rank = len(inputs[0].shape)
    axis = call.operation.axis
    axes = [axis] if isinstance(axis, int) else axis
    if axes is None or any(a % rank in (0, rank - 1) for a in axes):
        raise Refusal("it reduces the batch or the channel axis")
    return same(c, call, inputs, out_shape)


def reshape(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Repeats the ids if each row of the result holds one or several whole channel vectors.

    Memory order is row-major, so a last axis of k times the channels holds the
    channels of k neighbouring positions one after another.
    """
    x = only(inputs)
    repeats, rest = divmod(out_shape[-1], len(x.ids))
    if rest:
        raise Refusal(
            f"it reshapes {x.shape} to {tuple(out_shape)}, which cuts the channel axis up"
        )
    return {"in": x.ids, "out": np.tile(x.ids, repeats)}


def flatten(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Repeats the ids for every position, in row-major order.

    With `data_format="channels_first"`, the layer moves axis 1 to the end before it flattens.
    """
    x = only(inputs)
    sizes = [size for size in x.shape[1:] if size is not None]
    if len(sizes) < len(x.shape) - 1:
        raise Refusal("the size of its input is not fixed")
    grid = np.broadcast_to(x.ids, sizes)
    if call.operation.data_format == "channels_first":
        grid = np.moveaxis(grid, 0, -1)
    return {"in": x.ids, "out": grid.ravel()}


def squeeze(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself when axes of size 1 before the channels are dropped."""
    axis, rank = call.operation.axis, len(inputs[0].shape)
    if axis is None or covers_channels(axis, rank):
        raise Refusal(f"it may drop the channel axis (axis={axis})")
    return same(c, call, inputs, out_shape)


def expand_dims(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself when axes of size 1 before the channels are added."""
    if covers_channels(call.operation.axis, len(out_shape)):
        raise Refusal("it adds an axis after the channels")
    return same(c, call, inputs, out_shape)


def transpose(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself when axes other than batch and channels are moved."""
    axes, last = call.operation.axes, len(out_shape) - 1
    if axes is None or axes[0] != 0 or axes[-1] % (last + 1) != last:
        raise Refusal("it moves the batch or the channel axis")
    return same(c, call, inputs, out_shape)


def stack(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Unites the channels of operands that are stacked along a new axis before the channels."""
    if covers_channels(call.operation.axis, len(out_shape)):
        raise Refusal("it stacks along a new axis after the channels")
    for x in inputs[1:]:
        c.unite(inputs[0].ids, x.ids)
    return {"in": inputs[0].ids, "out": inputs[0].ids}


def split(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Gives each output its part of the channels; all channels if another axis is split."""
    x = only(inputs)
    sections = call.operation.indices_or_sections
    outputs = len(call.outputs)
    if covers_channels(call.operation.axis, len(x.shape)):
        parts = np.split(x.ids, sections)
    else:
        parts = [x.ids] * outputs
    return {"in": x.ids, **{output_role(i): part for i, part in enumerate(parts)}}


def permute(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself when a Permute layer moves axes before the channels."""
    if call.operation.dims[-1] != len(out_shape) - 1:
        raise Refusal("it moves the channel axis")
    return same(c, call, inputs, out_shape)


def get_item(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Takes a contiguous slice of the channels."""
    x = only(inputs)
    channel_key = split_key(call, len(x.shape))[1]
    if not isinstance(channel_key, slice) or channel_key.step not in (None, 1):
        raise Refusal(f"it takes channels by {channel_key!r}, not by a contiguous slice")
    return {"in": x.ids, "out": x.ids[channel_key]}


def pad(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes new ids for channels that zero padding adds (ResNet's parameter-free shortcut)."""
    x = only(inputs)
    operation = call.operation
    before, after = pad_width(operation, len(x.shape))[-1]
    if operation.mode != "constant" and (before or after):
        raise Refusal(f"it pads the channel axis with mode {operation.mode!r}")
    return {"in": x.ids, "out": np.concatenate([c.fresh(before), x.ids, c.fresh(after)])}
