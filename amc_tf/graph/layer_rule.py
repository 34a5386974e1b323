"""What a row of the layer table says, and what it may do to channel ids.

A *role* names a vector of channel ids of one call: `in` (positions of the
first input's last axis), `out` (of the first output's; `out1`, `out2`, ... of
further ones), `mid` (between the two kernels of a separable convolution),
`part` (the positions within one group of a grouped convolution) and `block`
(one id for each group).
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
    """Why a call cannot be pruned through; its channels are frozen."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """A value's channel ids, one for each position of its last axis, and its shape."""

    ids: Ids
    shape: tuple[int | None, ...]


class Connector(Protocol):
    """What a rule may do to channel ids (implemented by the analysis)."""

    def fresh(self, count: int) -> Ids:
        """New ids, tied to nothing."""
        ...

    def unite(self, a: Ids, b: Ids) -> None:
        """Position by position, `a` and `b` live or die together."""
        ...

    def freeze(self, ids: Ids, reason: str) -> None:
        """Channels that must stay."""
        ...


# (connector, call, inputs, shape of the first output) -> ids of each role; raises `Refusal`.
Connect = Callable[[Connector, Call, Sequence[Signal], tuple[int | None, ...]], Roles]
# (call, kept positions of each role as boolean vectors, rank of the input) -> what the rebuilt
# model calls in the operation's place.
Rewrite = Callable[[Call, Mapping[str, np.ndarray], int], Callable[..., Any]]
# (call, shapes of the inputs, shape of the first output) -> multiply-accumulates.
FixedMacs = Callable[[Call, Sequence[tuple[int | None, ...]], tuple[int | None, ...]], int | None]


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """A row of the table.

    Attributes:
        connect: ids of each role of a call; raises `Refusal`.
        weights: weight name to the roles of its *last* axes (None: never sliced).
        widths: configuration key to the role whose width it holds (of a list or
            tuple, its last element).
        mixes: weight name to the role whose channels it sums over: the rows
            that are zeroed for a masked model and refitted by least squares.
        macs: weight name to `out` or `in`: each element of the weight is
            multiplied once for every position (all axes but batch and
            channels) of that side.
        rewrite: for operations without widths whose arguments name positions.
        variant: chooses another row by an operation's settings.
        fixed_macs: multiply-accumulates of an operation that is never pruned;
            None where they are not known.
        kind: what the layer computes, for refit, batch norm folding and linear paths.
    """

    connect: Connect
    weights: Mapping[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    widths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    macs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rewrite: Rewrite | None = None
    variant: Callable[[Any], LayerRule] | None = None
    fixed_macs: FixedMacs | None = None
    kind: LayerKind = UNKNOWN

    def weight_axes(self, operation: Any) -> Iterator[tuple[Any, tuple[str | None, ...]]]:
        """Every weight of an operation with the role of each of its axes (None: fixed size)."""
        for weight in getattr(operation, "weights", ()):
            roles = self.weights.get(weight.name, ())
            yield weight, (None,) * (len(weight.shape) - len(roles)) + tuple(roles)


def positions(shape: Sequence[int | None]) -> int | None:
    """Positions of a batched tensor beside its channel axis; None if not fixed."""
    return volume(shape[1:-1])


def volume(sizes: Sequence[int | None]) -> int | None:
    """The product of the sizes; None if one is not fixed."""
    return None if any(d is None for d in sizes) else math.prod(d for d in sizes if d is not None)


def tie_blocks(c: Connector, ids: Ids, count: int) -> Ids:
    """Ties the ids of each of `count` neighbouring blocks together; one id for each block."""
    block = ids.reshape(count, -1)
    c.unite(np.repeat(block[:, 0], block.shape[1]), ids)
    return block[:, 0]


def covers_channels(axis: Any, rank: int) -> bool:
    """Whether one axis, or one of several (None: all), is the last of `rank`."""
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    return any(a is None or a % rank == rank - 1 for a in axes)


def output_role(number: int) -> str:
    """The role of a call's `number`-th output."""
    return f"out{number}" if number else "out"
