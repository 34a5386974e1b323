"""What a row of the layer table says, and what it may do to channel ids.

A *role* names a vector of channel ids of one call:

- `in`: one id for each position of the first input's last axis.
- `out`: the same for the first output; `out1`, `out2`, ... for further outputs.
- `mid`: the channels between the two kernels of a separable convolution.
- `part`: the positions within one group of a grouped convolution.
- `block`: one id for each group.
- `in@-2`, `out@-2`, ...: ids of an axis before the last, counted from the end, where it has any:
  the heads of attention, a channel axis that was moved.
- `features`, `made`: ids of what a kernel of several axes reads or makes, in row-major order.
- `sum:x`: ids of an axis x over which an operation without weights sums.
- `array1`, `array1@-2`, ...: ids along the axes of an array that is the second argument.
- `work0:x`, `work1:x`, ...: ids of the axes that the operation's first product runs over, ...
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from amc_tf.graph.layer_kinds import UNKNOWN, LayerKind
from amc_tf.graph.network import Call

Ids = np.ndarray
Roles = dict[str, Ids]


# In the place of a weight's name, in the row of a layer that leaves the names to Keras.
ANY_NAME = "*"


class Refusal(Exception):
    """The reason why a call cannot be pruned through; its channels are frozen."""


class Unfit(Refusal):
    """A row that is not true of the call; nothing that it says is used."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """A value of the network.

    Attributes:
        ids: channel ids, one for each position of its last axis; none if that has no known size.
            None for an array that is no value of the network.
        shape: shape.
        dtype: dtype.
        axes: ids of axes before the last, by their number from the end.
        number: number of the value.
    """

    ids: Any
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    axes: Mapping[int, Ids] = dataclasses.field(default_factory=dict)
    number: int = -1

    def along(self, axis: int) -> Ids | None:
        """Returns the ids of an axis, counted from the end; None if it has none."""
        return self.ids if axis == -1 else self.axes.get(axis)


class Connector(Protocol):
    """The operations on channel ids that a rule may use (the analysis implements them)."""

    def fresh(self, count: int) -> Ids:
        """Makes new ids that are united with no others."""
        ...

    def unite(self, a: Ids, b: Ids) -> None:
        """Declares that, position by position, `a` and `b` are kept or dropped together."""
        ...

    def freeze(self, ids: Ids, reason: str) -> None:
        """Declares that channels must stay, and why ("" if they are positions, say)."""
        ...

    def normalise(self, ids: Ids, reason: str) -> None:
        """Declares that an operation takes statistics over channels, which any dropped changes."""
        ...

    def multiply(self, ids: Ids, parts: Sequence[Ids]) -> None:
        """Declares that, position by position, `ids` are kept where all of `parts` are kept."""
        ...

    def sum_over(self, operands: Sequence[tuple[Ids, int]]) -> None:
        """Declares that an operation without weights sums over channels of values (by number)."""
        ...


# (connector, call, inputs, shape of the first output) -> ids of each role; raises `Refusal`.
Connect = Callable[[Connector, Call, Sequence[Signal], tuple[int | None, ...]], Roles]
# (call, kept positions of each role as boolean vectors, rank of the input) -> what the rebuilt
# model calls instead of the operation.
Rewrite = Callable[[Call, Mapping[str, np.ndarray], int], Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """A row of the table.

    Attributes:
        connect: function that returns the ids of each role of a call, or raises `Refusal`.
        weights: mapping from a weight's name (or `*`, for any other) to the roles of its *last*
            axes (None: the axis is never sliced).
        widths: mapping from a configuration key to the role whose width it holds (in its
            last element, if its value is a list or tuple), or to those of its last elements.
        mixes: mapping from a weight's name to the role whose channels it sums over, or to
            several. The rows of these channels are zeroed in a masked model and refitted by
            least squares.
        macs: mapping from a weight's name to `out` or `in`. Each element of the weight is
            multiplied once for every position (all axes but channels) of the output or
            the input. What an operation computes without these weights is counted from its
            traced computation, and never pruned.
        rewrite: function that makes the replacement of an operation that has no widths
            but whose arguments name positions.
        variant: function that chooses another row by an operation's settings.
        kind: what the layer computes, for refit, batch norm folding and linear paths.
        axes: what becomes of ids of axes before the last. `frozen`: these channels must stay.
            `alike`: the operation treats every position of these axes alike, and they are those
            of its output. `own`: `connect` follows them.
        operands: parameters of the operation's `call`, beside the first, that may be tensors.
        keeps_zero: whether the operation returns 0 in a channel where all that it reads, and all
            its weights, are 0; a function of the call if that depends on the call.
    """

    connect: Connect
    weights: Mapping[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    widths: Mapping[str, str | tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    mixes: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
    macs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rewrite: Rewrite | None = None
    variant: Callable[[Any], LayerRule | None] | None = None
    kind: LayerKind = UNKNOWN
    axes: Literal["frozen", "alike", "own"] = "frozen"
    operands: tuple[str, ...] = ()
    keeps_zero: bool | Callable[[Call], bool] = False

    def indexed(self) -> set[str]:
        """Returns the roles that a weight's axes or a width of the configuration have."""
        axes = {role for roles in self.weights.values() for role in roles if role is not None}
        widths = (w if isinstance(w, tuple) else (w,) for w in self.widths.values())
        return axes | {role for roles in widths for role in roles if role is not None}

    def vanishes(self, call: Call) -> bool:
        """Returns whether a call returns 0 in a channel where its inputs and weights are 0."""
        return self.keeps_zero(call) if callable(self.keeps_zero) else self.keeps_zero

    def mixed(self, weight: str) -> tuple[str, ...]:
        """Returns the roles whose channels a weight sums over."""
        roles = self.mixes.get(weight, ())
        return (roles,) if isinstance(roles, str) else roles

    def weight_axes(self, operation: Any) -> Iterator[tuple[Any, tuple[str | None, ...]]]:
        """Yields every weight of an operation with the roles of its axes (None: fixed size)."""
        for weight in getattr(operation, "weights", ()):
            roles = self.weights.get(weight.name, self.weights.get(ANY_NAME, ()))
            yield weight, (None,) * (len(weight.shape) - len(roles)) + tuple(roles)


def volume(sizes: Sequence[int | None]) -> int | None:
    """Returns the product of the sizes; None if one is not fixed."""
    return None if any(d is None for d in sizes) else math.prod(d for d in sizes if d is not None)


def only(inputs: Sequence[Signal]) -> Signal:
    """Returns the one input of a call whose row is that of a layer with one."""
    if len(inputs) != 1:
        raise Refusal(f"its row is that of a layer that reads one tensor; it reads {len(inputs)}")
    return inputs[0]


def tie_blocks(c: Connector, ids: Ids, count: int) -> Ids:
    """Unites the ids within each of `count` neighbouring blocks; returns one id for each block."""
    block = ids.reshape(count, -1)
    c.unite(np.repeat(block[:, 0], block.shape[1]), ids)
    return block[:, 0]


def covers_channels(axis: Any, rank: int) -> bool:
    """Returns whether `axis` (a number, several, or None for all) includes the last axis."""
    return -1 in axes_of(axis, rank)


def axes_of(axis: Any, rank: int) -> list[int]:
    """Returns the axes that a setting names, counted from the end; all of them for None."""
    if axis is None:
        return list(range(-rank, 0))
    return [int(a) % rank - rank for a in np.atleast_1d(axis)]


def positions(c: Connector, size: int | None) -> Ids:
    """Makes ids for an axis that holds no channels, so that all of it stays."""
    ids = c.fresh(size or 0)
    c.freeze(ids, "")
    return ids


def axis_role(role: str, axis: int) -> str:
    """Returns the role of an axis, counted from the end, of what `in` or `out` is the last of."""
    return role if axis == -1 else f"{role}@{axis}"


def roles_of_axes(roles: Mapping[str, Any], role: str) -> dict[int, str]:
    """Returns the roles of the axes before the last of `in` or an output, by their number."""
    return {int(name.split("@")[1]): name for name in roles if name.startswith(f"{role}@")}


def output_role(number: int) -> str:
    """Returns the role of a call's `number`-th output, counted from 0."""
    return f"out{number}" if number else "out"
