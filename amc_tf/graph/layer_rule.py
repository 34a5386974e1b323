"""What a row of the layer table says, and what it may do to channel ids.

A *role* names a vector of channel ids of one call:

- `in`: one id for each position of the first input's last axis.
- `out`: the same for the first output; `out1`, `out2`, ... for further outputs.
- `mid`: the channels between the two kernels of a separable convolution.
- `part`: the positions within one group of a grouped convolution.
- `block`: one id for each group.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from amc_tf.graph.layer_kinds import UNKNOWN, LayerKind
from amc_tf.graph.network import Call

Ids = np.ndarray
Roles = dict[str, Ids]


class Refusal(Exception):
    """The reason why a call cannot be pruned through; its channels are frozen."""


class Unfit(Refusal):
    """A row that is not true of the call; nothing that it says is used."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """A value's channel ids, one for each position of its last axis, its shape and dtype."""

    ids: Ids
    shape: tuple[int | None, ...]
    dtype: str = "float32"


class Connector(Protocol):
    """The operations on channel ids that a rule may use (the analysis implements them)."""

    def fresh(self, count: int) -> Ids:
        """Makes new ids that are united with no others."""
        ...

    def unite(self, a: Ids, b: Ids) -> None:
        """Declares that, position by position, `a` and `b` are kept or dropped together."""
        ...

    def freeze(self, ids: Ids, reason: str) -> None:
        """Declares that channels must stay, and why."""
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
        weights: mapping from a weight's name to the roles of its *last* axes (None: the
            axis is never sliced).
        widths: mapping from a configuration key to the role whose width it holds (in its
            last element, if its value is a list or tuple).
        mixes: mapping from a weight's name to the role whose channels it sums over. The
            rows of these channels are zeroed in a masked model and refitted by least
            squares.
        macs: mapping from a weight's name to `out` or `in`. Each element of the weight is
            multiplied once for every position (all axes but channels) of the output or
            the input. What an operation computes without these weights is counted from its
            traced computation, and never pruned.
        rewrite: function that makes the replacement of an operation that has no widths
            but whose arguments name positions.
        variant: function that chooses another row by an operation's settings.
        kind: what the layer computes, for refit, batch norm folding and linear paths.
    """

    connect: Connect
    weights: Mapping[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    widths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    macs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rewrite: Rewrite | None = None
    variant: Callable[[Any], LayerRule | None] | None = None
    kind: LayerKind = UNKNOWN

    def weight_axes(self, operation: Any) -> Iterator[tuple[Any, tuple[str | None, ...]]]:
        """Yields every weight of an operation with the roles of its axes (None: fixed size)."""
        for weight in getattr(operation, "weights", ()):
            roles = self.weights.get(weight.name, ())
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
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return any(a is None or a % rank == rank - 1 for a in axes)


def output_role(number: int) -> str:
    """Returns the role of a call's `number`-th output, counted from 0."""
    return f"out{number}" if number else "out"
