"""How channel ids pass through operations that move, drop, repeat or choose from axes.

Each function is the `connect` of rows of the layer table.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import numpy as np

from amc_tf.graph.layer_rule import (
    Connector,
    Ids,
    Refusal,
    Roles,
    Signal,
    axes_of,
    axis_role,
    covers_channels,
    only,
    output_role,
    positions,
)
from amc_tf.graph.network import Call
from amc_tf.graph.rewrites import split_key

Sizes = Sequence[int | None]


def transpose(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Moves the ids of each axis with it."""
    rank = len(out_shape)
    axes = range(rank)[::-1] if call.operation.axes is None else call.operation.axes
    return _moved(c, only(inputs), [axis % rank - rank for axis in axes], out_shape)


def permute(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Moves the ids of each axis with it, as a Permute layer counts axes."""
    rank = len(out_shape)
    axes = [-rank, *(axis - rank for axis in call.operation.dims)]
    return _moved(c, only(inputs), axes, out_shape)


def swap(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Moves the ids of the two axes that swapaxes exchanges."""
    rank = len(out_shape)
    axes = list(range(-rank, 0))
    a, b = (int(axis) % rank for axis in (call.operation.axis1, call.operation.axis2))
    axes[a], axes[b] = axes[b], axes[a]
    return _moved(c, only(inputs), axes, out_shape)


def move(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Moves the ids of the axes that moveaxis names."""
    rank, operation = len(out_shape), call.operation
    order = np.moveaxis(np.empty(range(rank)), operation.source, operation.destination).shape
    return _moved(c, only(inputs), [axis - rank for axis in order], out_shape)


def flip(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Turns the ids of the axes round whose positions are."""
    x = only(inputs)
    turned = axes_of(call.operation.axis, len(x.shape))
    roles = _moved(c, x, range(-len(x.shape), 0), out_shape)
    own = {axis_role("out", axis) for axis in turned}
    return {role: ids[::-1] if role in own else ids for role, ids in roles.items()}


def roll(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keeps the ids of the axes along which nothing is rolled."""
    x = only(inputs)
    if covers_channels(call.operation.axis, len(x.shape)):
        raise Refusal("it rolls the channel axis")
    rolled = axes_of(call.operation.axis, len(x.shape))
    _kept_axes(c, x, set(rolled), call)
    return _moved(c, x, range(-len(x.shape), 0), out_shape)


def reduce(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keeps the ids of the axes over which nothing is reduced."""
    x = only(inputs)
    rank = len(x.shape)
    gone = set(axes_of(call.operation.axis, rank))
    if gone & {-1, -rank}:
        raise Refusal("it reduces the batch or the channel axis")
    for axis in gone & set(x.axes):
        c.freeze(x.axes[axis], f"{call.operation.name!r} reduces them")
    kept = [None if a in gone else a for a in range(-rank, 0)]
    if len(out_shape) < rank:
        kept = [a for a in kept if a is not None]
    return _moved(c, x, kept, out_shape)


def squeeze(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keeps the ids of the axes that stay when axes of size 1 are dropped."""
    x = only(inputs)
    axis, rank = call.operation.axis, len(x.shape)
    if axis is None or covers_channels(axis, rank):
        raise Refusal(f"it may drop the channel axis (axis={axis})")
    gone = axes_of(axis, rank)
    return _moved(c, x, [a for a in range(-rank, 0) if a not in gone], out_shape)


def expand_dims(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keeps the ids of all axes when axes of size 1 are added before the channels."""
    axis, rank = call.operation.axis, len(out_shape)
    if covers_channels(axis, rank):
        raise Refusal("it adds an axis after the channels")
    new = axes_of(axis, rank)
    old = iter(range(-len(inputs[0].shape), 0))
    axes = [None if a in new else next(old) for a in range(-rank, 0)]
    return _moved(c, only(inputs), axes, out_shape)


def _moved(c: Connector, x: Signal, axes: Sequence[int | None], out_shape: Sizes) -> Roles:
    """Returns the roles of a value whose axes are those of `x` with the given numbers.

    Args:
        c: the analysis.
        x: what is read.
        axes: for each axis of the output, that of the input, from the end; None for a new one.
        out_shape: the output's shape.
    """
    roles: Roles = {"in": x.ids}
    for to, axis in enumerate(axes, -len(axes)):
        ids = None if axis is None else x.along(axis)
        if ids is not None and len(ids):  # a last axis of open size has none
            roles[axis_role("out", to)] = ids
    if "out" not in roles:
        roles["out"] = positions(c, out_shape[-1])
    return roles


def split(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Gives each output its part of the channels; all channels if another axis is split."""
    x = only(inputs)
    sections, rank = call.operation.indices_or_sections, len(x.shape)
    axes = _kept_axes(c, x, {call.operation.axis % rank - rank}, call)
    parts = [x.ids] * len(call.outputs)
    if covers_channels(call.operation.axis, rank):
        parts = np.split(x.ids, sections)
    roles: Roles = {"in": x.ids}
    for i, part in enumerate(parts):
        role = output_role(i)
        roles[role] = part
        roles.update((axis_role(role, axis), ids) for axis, ids in axes.items())
    return roles


def unstack(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Gives each output all channels, and drops the axis along which they lay."""
    x = only(inputs)
    rank = len(x.shape)
    gone = call.operation.axis % rank - rank
    if gone == -1:
        raise Refusal("it takes the channel axis apart")
    _kept_axes(c, x, {gone}, call)
    moved = _moved(c, x, [axis for axis in range(-rank, 0) if axis != gone], out_shape)
    roles: Roles = {"in": x.ids}
    for i in range(len(call.outputs)):
        roles.update((k.replace("out", output_role(i)), v) for k, v in moved.items() if k != "in")
    return roles


def take(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keeps the ids of the axes behind the one along which positions are taken."""
    operation = call.operation
    given = inspect.signature(operation.call).bind(*call.args, **call.kwargs).arguments
    table, indices = (
        next((x for x in inputs if x.number == getattr(given[name], "number", None)), None)
        for name in ("x", "indices")
    )
    if table is None or operation.axis is None:
        raise Refusal("it takes values of an array")
    if indices is not None:
        for ids in (indices.ids, *indices.axes.values()):
            c.freeze(ids, "")
    rank = len(table.shape)
    gone = operation.axis % rank - rank
    if gone == -1:
        raise Refusal("it takes channels by their position")
    _kept_axes(c, table, {gone}, call)
    kept = [None] * (len(out_shape) + gone + 1) + list(range(gone + 1, 0))
    return _moved(c, table, kept, out_shape)


def get_item(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Takes a contiguous slice of the channels, and what it says of the other axes."""
    x = only(inputs)
    before, channels = split_key(call, len(x.shape))
    if not isinstance(channels, slice) or channels.step not in (None, 1):
        raise Refusal(f"it takes channels by {channels!r}, not by a contiguous slice")
    roles: Roles = {"in": x.ids, "out": x.ids[channels]}
    read, made = -len(x.shape), -len(out_shape)
    for key in before:
        ids = x.axes.get(read)
        if key is None:
            read -= 1
        elif ids is not None and key == slice(None):
            roles[axis_role("out", made)] = ids
        elif ids is not None:
            c.freeze(ids, f"{call.operation.name!r} takes some by their position")
        made += 0 if isinstance(key, int) else 1
        read += 1
    return roles


def repeat(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Repeats the ids of the axis whose positions are repeated."""
    x = only(inputs)
    operation, rank = call.operation, len(x.shape)
    if operation.axis is None or np.ndim(operation.repeats):
        raise Refusal("it repeats positions by different numbers")
    repeated = operation.axis % rank - rank
    if repeated == -rank:
        raise Refusal("it repeats the batch")
    roles: Roles = {"in": x.ids}
    for axis in (-1, *x.axes):
        ids = x.along(axis)
        times = operation.repeats if axis == repeated else 1
        if ids is not None:
            roles[axis_role("out", axis)] = np.repeat(ids, times)
    return roles


def _kept_axes(c: Connector, x: Signal, changed: set[int], call: Call) -> Mapping[int, Ids]:
    """Returns the ids of axes before the last, but for the changed ones, which it freezes."""
    for axis in changed & set(x.axes):
        c.freeze(x.axes[axis], f"{call.operation.name!r} takes some by their position")
    return {axis: ids for axis, ids in x.axes.items() if axis not in changed}
