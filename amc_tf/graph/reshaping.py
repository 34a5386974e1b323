"""How channel ids pass through operations that cut, join or move axes.

Sizes are matched from the last axis on: in (B, T, 12) -> (B, T, 3, 4), the 12 channels become 3
heads of 4. A head may be dropped from all widths, and a width from all heads, so each of the 12
channels is kept where its head and its width are kept. Each function is the `connect` of rows of
the layer table.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from amc_tf.graph.layer_rule import (
    Connector,
    Ids,
    Refusal,
    Roles,
    Signal,
    axis_role,
    covers_channels,
    only,
    output_role,
    positions,
    volume,
)
from amc_tf.graph.network import Call
from amc_tf.graph.rewrites import split_key

Sizes = Sequence[int | None]


def reshape(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Joins the ids of axes that become one; makes ids for the axes that one becomes.

    Memory order is row-major, so a last axis of k times the channels holds the channels of k
    neighbouring positions one after another.
    """
    x = only(inputs)
    rank, out_rank = len(x.shape), len(out_shape)
    roles: Roles = {}
    left = range(-rank, 0), range(-out_rank, 0)
    for read, made in _blocks(x.shape, out_shape):
        left = range(-rank, read[0]), range(-out_rank, made[0])
        if read[0] == -rank or made[0] == -out_rank:
            left = range(-rank, read[-1] + 1), range(-out_rank, made[-1] + 1)
            break  # the batch is among them
        ids = joined_ids(c, [x.along(axis) for axis in read], [x.shape[axis] for axis in read])
        roles.update(_cut(c, ids, made, [out_shape[axis] for axis in made]))
    if "out" not in roles:
        # The size of a position is open: each row may still hold whole channel vectors.
        repeats, rest = divmod(out_shape[-1] or 0, len(x.ids) or 1)
        if rest or not repeats:
            raise Refusal(
                f"it reshapes {x.shape} to {tuple(out_shape)}, which cuts the channel axis up"
            )
        roles["out"] = np.tile(x.ids, repeats)
    for axis in left[0]:
        c.freeze(x.axes.get(axis, np.zeros(0, int)), f"{call.operation.name!r} cuts their axis up")
    return {"in": x.ids, **roles}


def _blocks(before: Sizes, after: Sizes) -> Iterator[tuple[range, range]]:
    """Yields the axes that become one another, counted from the end, the last ones first."""
    i, j = 0, 0
    while i > -len(before) and j > -len(after):
        low, to = i - 1, j - 1
        while (a := before[low : i or None]) and (b := after[to : j or None]):
            alike = len(a) == len(b) == 1 and a[0] is b[0] is None
            if (None in a or None in b) and not alike:
                return
            size, other = volume(a), volume(b)
            if size is None or other is None or size == other:
                break
            low, to = (low - 1, to) if size < other else (low, to - 1)
            if low < -len(before) or to < -len(after):
                return
        yield range(low, i), range(to, j)
        i, j = low, to


def joined_ids(c: Connector, axes: Sequence[Ids | None], sizes: Sizes) -> Ids | None:
    """Returns the ids of the axis that several become, in row-major order."""
    if len(axes) == 1:
        return axes[0]
    grid = [int(size or 1) for size in sizes]
    own = [(at, ids) for at, ids in enumerate(axes) if ids is not None and grid[at] > 1]
    if not own:
        return None
    spread = [_along(ids, at, grid) for at, ids in own]
    if len(spread) == 1:
        return spread[0]
    made = c.fresh(math.prod(grid))
    c.multiply(made, spread)
    return made


def _cut(c: Connector, ids: Ids | None, axes: range, sizes: Sizes) -> Roles:
    """Returns the ids of the axes that one becomes, by their roles."""
    wide = [at for at, size in enumerate(sizes) if size != 1]
    roles: Roles = {}
    if ids is not None and len(wide) <= 1:
        at = wide[0] if wide else len(axes) - 1
        roles[axis_role("out", axes[at])] = ids
    elif ids is not None:
        grid = [int(size or 1) for size in sizes]
        parts = {at: c.fresh(grid[at]) for at in wide}
        c.multiply(ids, [_along(part, at, grid) for at, part in parts.items()])
        roles = {axis_role("out", axes[at]): part for at, part in parts.items()}
    if axes[-1] == -1 and "out" not in roles:
        roles["out"] = positions(c, sizes[-1])
    return roles


def _along(ids: Ids, at: int, grid: Sequence[int]) -> Ids:
    """Returns the id of each position of a grid whose axis `at` has ids, in row-major order."""
    shape = [1] * len(grid)
    shape[at] = len(ids)
    return np.broadcast_to(ids.reshape(shape), grid).ravel()


def depth_to_space(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes pixels of blocks of channels; a channel is kept or dropped in all blocks."""
    x, channels = only(inputs), c.fresh(out_shape[-1])
    blocks = len(x.ids) // len(channels)
    _last_alone(call)
    c.unite(x.ids, np.tile(channels, blocks))
    return {"in": x.ids, "out": channels}


def space_to_depth(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes blocks of channels of pixels."""
    x = only(inputs)
    _last_alone(call)
    return {"in": x.ids, "out": np.tile(x.ids, out_shape[-1] // len(x.ids))}


def _last_alone(call: Call) -> None:
    if call.operation.data_format == "channels_first":
        raise Refusal("its channels come first")


def flatten(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Repeats the ids for every position, in row-major order.

    With `data_format="channels_first"`, the layer moves axis 1 to the end before it flattens.
    """
    x = only(inputs)
    sizes = [size for size in x.shape[1:] if size is not None]
    if len(sizes) < len(x.shape) - 1:
        raise Refusal("the size of its input is not fixed")
    if call.operation.data_format == "channels_first":
        for ids in x.axes.values():
            c.freeze(ids, f"{call.operation.name!r} moves their axis")
        grid = np.moveaxis(np.broadcast_to(x.ids, sizes), 0, -1)
        return {"in": x.ids, "out": grid.ravel()}
    joined = joined_ids(c, [x.along(axis) for axis in range(-len(sizes), 0)], sizes)
    return {"in": x.ids, "out": x.ids if joined is None else joined}


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


def squeeze(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keeps the ids of the axes that stay when axes of size 1 are dropped."""
    x = only(inputs)
    axis, rank = call.operation.axis, len(x.shape)
    if axis is None or covers_channels(axis, rank):
        raise Refusal(f"it may drop the channel axis (axis={axis})")
    gone = {a % rank - rank for a in (axis if isinstance(axis, (list, tuple)) else [axis])}
    return _moved(c, x, [a for a in range(-rank, 0) if a not in gone], out_shape)


def expand_dims(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Keeps the ids of all axes when axes of size 1 are added before the channels."""
    axis, rank = call.operation.axis, len(out_shape)
    if covers_channels(axis, rank):
        raise Refusal("it adds an axis after the channels")
    new = {a % rank for a in (axis if isinstance(axis, (list, tuple)) else [axis])}
    old = iter(range(-len(inputs[0].shape), 0))
    axes = [None if a in new else next(old) for a in range(rank)]
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


def alike(c: Connector, inputs: Sequence[Signal], out_shape: Sizes) -> Roles:
    """Passes on the ids of axes before the last, which every operand has alike.

    Along an axis of size 1, an operand is repeated.
    """
    roles: Roles = {}
    for axis in sorted({axis for x in inputs for axis in x.axes}):
        sizes = [(x, x.shape[axis]) for x in inputs if len(x.shape) >= -axis]
        found = [x.axes[axis] for x, size in sizes if axis in x.axes and size == out_shape[axis]]
        for x, size in sizes:
            if axis in x.axes and size != out_shape[axis]:
                c.freeze(x.axes[axis], "")
            elif axis not in x.axes and size != 1 and found:
                c.freeze(found[0], "")  # it has positions there
        for other in found[1:]:
            c.unite(found[0], other)
        if found:
            roles[axis_role("in", axis)] = roles[axis_role("out", axis)] = found[0]
    return roles
