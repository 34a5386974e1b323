"""How channel ids pass through operations that cut, join or move axes.

Sizes are matched from the last axis on: in (B, T, 12) -> (B, T, 3, 4), the 12 channels become 3
heads of 4. A head may be dropped from all widths, and a width from all heads, so each of the 12
channels is kept where its head and its width are kept. Each function is the `connect` of rows of
the layer table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from amc_tf.graph.layer_rule import (
    Connector,
    Ids,
    Refusal,
    Roles,
    Signal,
    axis_role,
    only,
    positions,
    volume,
)
from amc_tf.graph.network import Call

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
