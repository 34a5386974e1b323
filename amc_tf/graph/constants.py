"""Arrays that an operation is called with: masks, tables of positions, factors of channels.

They are arguments of a call and no values of the network. Where an axis of an array lies along one
that holds channels, the rebuilt network reads the positions that are kept. The role of such an axis
is `array1` for the last one of the second argument, `array1@-2` for that before it, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.graph.layer_rule import Connector, Refusal, Roles, Signal, axis_role, roles_of_axes
from amc_tf.graph.network import Call, Value


def array_roles(c: Connector, call: Call, inputs: Sequence[Signal]) -> Roles:
    """Returns the ids of the axes of a call's arrays, which it broadcasts to what it reads.

    Channels that are broadcast along an array's axis must stay: the array says how many there are.

    Raises:
        Refusal: the call reads tensors and arrays in one list.
    """
    roles: Roles = {}
    for at, array in enumerate((*call.args, *call.kwargs.values())):
        sizes = _sizes(array)
        if sizes is None:
            raise Refusal("it reads tensors and arrays in one list")
        for axis in (a for a in range(-len(sizes), 0) if sizes[a] != 1):
            found = [ids for x in inputs if (ids := x.along(axis)) is not None]
            if all(len(ids) == sizes[axis] for ids in found) and not _is_weight(array):
                roles.update({axis_role(f"array{at}", axis): ids for ids in found[:1]})
                continue
            for ids in found:
                c.freeze(ids, f"one of the operands of {call.operation.name!r} is a constant array")
    return roles


def holds_arrays(roles: Iterable[str]) -> bool:
    """Returns whether roles name axes of arrays."""
    return any(role.startswith("array") for role in roles)


def has_array_settings(operation: Any) -> bool:
    """Returns whether an operation that is no layer keeps an array, as `ops.clip` does."""
    if isinstance(operation, keras.Layer):
        return False
    return any(np.ndim(x) > 0 for x in vars(operation).values() if hasattr(x, "__array__"))


def sliced(
    args: tuple, kwargs: Mapping[str, Any], kept: Mapping[str, np.ndarray]
) -> tuple[tuple, dict[str, Any]]:
    """Returns the arguments of a call with what is kept of its arrays.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        kept: kept positions of each role of the call, as boolean vectors.
    """
    given = list((*args, *kwargs.values()))
    for at, argument in enumerate(given):
        last = f"array{at}"
        axes = roles_of_axes(kept, last) | ({-1: last} if last in kept else {})
        if axes:
            value = np.asarray(argument)
            for axis, role in axes.items():
                value = np.compress(kept[role], value, axis)
            given[at] = keras.ops.convert_to_tensor(value)
    return tuple(given[: len(args)]), dict(zip(kwargs, given[len(args) :], strict=True))


def is_alike_at_positions(call: Call) -> bool:
    """Returns whether no array that a call broadcasts differs from position to position."""
    sizes = map(_sizes, (*call.args, *call.kwargs.values()))
    return all(own is not None and math.prod(own[:-1]) == 1 for own in sizes)


def _sizes(argument: Any) -> tuple[int, ...] | None:
    """Returns the shape of an array; () for tensors and numbers, None for a list of both kinds."""
    held = [isinstance(x, (Value, keras.KerasTensor)) for x in keras.tree.flatten(argument)]
    if any(held):
        return () if all(held) else None
    return np.shape(argument)


def _is_weight(array: Any) -> bool:
    """Returns whether an array is a variable, which training may change."""
    return isinstance(array, keras.Variable)
