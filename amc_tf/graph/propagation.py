"""How channel ids pass through a call.

Each function is the `connect` of rows of the layer table, or makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import activations
from keras import layers as kl

from amc_tf.graph.activations import activation_name
from amc_tf.graph.additions import misplaces
from amc_tf.graph.constants import array_roles
from amc_tf.graph.layer_rule import (
    Connector,
    Refusal,
    Roles,
    Signal,
    axes_of,
    axis_role,
    covers_channels,
    only,
    tie_blocks,
)
from amc_tf.graph.network import Call, Value
from amc_tf.graph.probing import is_of_last_axis, mixing
from amc_tf.graph.rewrites import pad_width


def refused(reason: str) -> Callable[..., Roles]:
    """Makes the `connect` of a class that is known but cannot be pruned through."""

    def connect(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
        raise Refusal(reason)

    return connect


def same(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Passes on every channel by itself, at the same position."""
    x = only(inputs)
    if (out_shape[-1] or 0) != len(x.ids):
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
    if not is_of_last_axis(activation):
        _freeze_axes(c, inputs[0], None, call)
    return same(c, call, inputs, out_shape)


def parameter(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes new ids: the weight is what its readers say, and nothing of the input is in it."""
    sizes = enumerate(call.operation.shape, -len(call.operation.shape))
    made = {axis_role("out", axis): c.fresh(size) for axis, size in sizes if size > 1}
    return {"out": c.fresh(out_shape[-1]), **made}


def softmax(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Freezes the channels if softmax is taken over them: each output depends on them all."""
    if covers_channels(getattr(call.operation, "axis", -1), len(out_shape)):
        c.freeze(inputs[0].ids, f"softmax {call.operation.name!r} mixes channels")
    _freeze_axes(c, inputs[0], getattr(call.operation, "axis", -1), call)
    return same(c, call, inputs, out_shape)


def _freeze_axes(c: Connector, x: Signal, axis: Any, call: Call) -> None:
    """Freezes the channels of axes before the last that an operation mixes; None means all."""
    mixed = axes_of(axis, len(x.shape))
    for own, ids in x.axes.items():
        if own in mixed:
            c.freeze(ids, f"{call.operation.name!r} mixes them")


def can_be_kept(layer: Any) -> bool:
    """Returns whether a layer's statistics can be taken over the channels that are kept."""
    return type(layer) in (kl.LayerNormalization, kl.RMSNormalization)


def channel_statistics(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Follows layer, RMS and unit normalisation.

    Normalisation over other axes than the channels is exact in each channel.
    """
    axis, rank = call.operation.axis, len(out_shape)
    if covers_channels(axis, rank):
        reason = (
            f"{call.operation.name!r} normalises by statistics over the channels, which change "
            "with any channel dropped"
        )
        alone = axis if isinstance(axis, int) else axis[0] if len(axis) == 1 else None
        if alone is not None and can_be_kept(call.operation):
            c.normalise(inputs[0].ids, reason)
        else:
            c.freeze(inputs[0].ids, reason)
    elif getattr(call.operation, "weights", ()):
        raise Refusal("its weights belong to positions, not to channels")
    _freeze_axes(c, inputs[0], call.operation.axis, call)
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
    if misplaces(call, {x.number: x.shape for x in inputs}, out_shape):
        raise Refusal("Keras adds one of its summands along another axis than its own")
    width = out_shape[-1] or 0
    wide = [x for x in inputs if len(x.ids) == width]
    if not wide:
        raise Refusal("it changes the channel axis")
    for x in inputs:
        if len(x.ids) != width:
            # One map that scales every channel (spatial attention): it must stay.
            c.freeze(x.ids, f"broadcast over all channels by {call.operation.name!r}")
    for x in wide[1:]:
        c.unite(wide[0].ids, x.ids)
    return {"in": wide[0].ids, "out": wide[0].ids, **array_roles(c, call, inputs)}


def concatenate(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Concatenates ids along the channel axis; unites the operands' channels along other axes."""
    _require_tensors(call)
    if call.operation.axis in (-1, len(out_shape) - 1):
        ids = np.concatenate([x.ids for x in inputs])
        return {"in": ids, "out": ids}
    for x in inputs[1:]:
        c.unite(inputs[0].ids, x.ids)
    return {"in": inputs[0].ids, "out": inputs[0].ids}


def _require_tensors(call: Call) -> None:
    joined = call.args[0] if call.args else next(iter(call.kwargs.values()))
    if not all(isinstance(x, Value) for x in joined):
        raise Refusal("it joins tensors and arrays")


def stack(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Unites the channels of operands that are stacked along a new axis before the channels."""
    _require_tensors(call)
    if covers_channels(call.operation.axis, len(out_shape)):
        raise Refusal("it stacks along a new axis after the channels")
    for x in inputs[1:]:
        c.unite(inputs[0].ids, x.ids)
    return {"in": inputs[0].ids, "out": inputs[0].ids}


def pad(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes new ids for channels that zero padding adds (ResNet's parameter-free shortcut)."""
    x = only(inputs)
    operation = call.operation
    before, after = pad_width(operation, len(x.shape))[-1]
    if operation.mode != "constant" and (before or after):
        raise Refusal(f"it pads the channel axis with mode {operation.mode!r}")
    return {"in": x.ids, "out": np.concatenate([c.fresh(before), x.ids, c.fresh(after)])}
