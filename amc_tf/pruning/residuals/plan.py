"""How a block is folded: which of its layers carry its input, and where in their kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from keras import layers as kl

from amc_tf.graph.layer_kinds import RECTIFIED, UNBOUNDED, Bounds
from amc_tf.graph.layer_table import bounds_of, is_registered
from amc_tf.graph.network import Call, Network
from amc_tf.pruning.residuals import images
from amc_tf.pruning.residuals.blocks import Block, Unfoldable
from amc_tf.pruning.residuals.linear import Shortcut, is_norm, kernel_sizes, mixes, shortcut_of
from amc_tf.pruning.residuals.ranges import held

_DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
_PADDING = (kl.ZeroPadding1D, kl.ZeroPadding2D, kl.ZeroPadding3D)


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """A block that is folded.

    Attributes:
        block: its calls.
        shortcut: what it adds to its branch.
        first: position in the branch of the first kernel, which takes up the input.
        last: position of the last kernel, which adds it.
        places: place in the kernel through which each layer carries the input, by position.
        copies: how often the input is carried: not at all where the branch has one kernel alone,
            once where nothing clips it, twice (x and -x) where it is rectified and may be negative.
        macs: multiply-accumulates of the block before and after.
    """

    block: Block
    shortcut: Shortcut
    first: int
    last: int
    places: Mapping[int, tuple[int, ...]]
    copies: int
    macs: tuple[int, int]

    @property
    def carried(self) -> int:
        """Number of channels by which the layers within the branch get wider."""
        return self.copies * self.shortcut.matrix.shape[0]


def fold_of(network: Network, block: Block, known: Mapping[int, Bounds]) -> Fold:
    """Says how a block is folded.

    Args:
        network: the network.
        block: one of its blocks.
        known: the range of every value.

    Raises:
        Unfoldable: it cannot be, with the sum computed exactly as it was.
    """
    branch = block.branch
    kernels = [i for i, call in enumerate(branch) if mixes(call.operation)]
    if not kernels:
        raise Unfoldable("no layer of its branch has a kernel that could add its input")
    first, last = kernels[0], kernels[-1]
    shortcut = shortcut_of(network, block)
    maps = images.whole(network.tensors[block.fork].shape)
    places, activations = {}, []
    for i, call in enumerate(branch):
        operation, told = call.operation, network.told(call.operation)
        shape = network.tensors[call.inputs[0]].shape
        inside = first < i < last
        if type(operation) is kl.Identity:
            continue
        if mixes(operation) or (inside and _carries_each(operation)):
            maps, places[i] = images.through_kernel(maps, operation, kernel_sizes(operation), shape)
            activations += [(told, operation.activation)] if i < last else []
            if i == last and held(operation.activation) != UNBOUNDED:
                raise Unfoldable(f"{told} ends its branch with an activation, not with a sum")
        elif type(operation) in _PADDING and i < last:
            padding = operation.padding
            pairs = [padding] if isinstance(operation, kl.ZeroPadding1D) else padding
            maps = images.padded(maps, pairs)
        elif is_norm(operation) and i > first:
            continue
        elif inside and not getattr(operation, "weights", ()):
            activations.append((told, operation))
        else:
            where = "before its first kernel" if i < first else "after its last kernel"
            where = "in its branch" if inside else where
            raise Unfoldable(f"{told} {where} does not let its input pass")
    if not images.same(maps, shortcut.maps):
        raise Unfoldable(
            "its branch cannot carry every position of its input to where its shortcut adds it"
        )
    copies = 0 if first == last else _copies(activations, known[block.fork])
    carried = copies * shortcut.matrix.shape[0]
    macs = _macs(network, block, first, last, carried)
    return Fold(block, shortcut, first, last, places, copies, macs)


def _carries_each(operation: Any) -> bool:
    return (
        type(operation) in _DEPTHWISE
        and operation.depth_multiplier == 1
        and operation.data_format == "channels_last"
    )


def _copies(activations: list[tuple[str, Any]], known: Bounds) -> int:
    """Returns how often the input is carried so that activations leave it as it is."""
    low, high = known
    clips = []
    for told, activation in activations:
        kept = held(activation)
        if kept is None or is_registered(activation):
            raise Unfoldable(f"{told} changes what passes it")
        if not kept[0] <= low <= high <= kept[1]:
            clips.append((told, activation, kept))
    for told, activation, kept in clips:
        if kept != RECTIFIED or _rectifies(activation) != RECTIFIED:
            raise Unfoldable(
                f"{told} keeps only what is within {_written(kept)}, and the block's input is "
                f"known to be within {_written(known)}"
            )
    return 2 if clips else 1


def _rectifies(activation: Any) -> Bounds:
    inner = activation.activation if type(activation) is kl.Activation else activation
    return bounds_of(inner)


def _written(bounds: Bounds) -> str:
    return f"[{bounds[0]:g}, {bounds[1]:g}]"


def _macs(network: Network, block: Block, first: int, last: int, carried: int) -> tuple[int, int]:
    """Returns a block's multiply-accumulates before and after; an open size counts as 32."""

    def positions(call: Call) -> int:
        shape = network.tensors[call.outputs[0]].shape
        return math.prod(32 if size is None else size for size in shape[1:-1])

    before = after = 0
    for i, call in enumerate(block.branch):
        if not hasattr(call.operation, "kernel"):
            continue
        *sizes, read, made = call.operation.kernel.shape
        window = math.prod(sizes) * positions(call)
        before += window * read * made
        read += carried if i > first else 0
        made += carried if i < last and mixes(call.operation) else 0
        after += window * read * made
    for call in block.shortcut:
        if hasattr(call.operation, "kernel"):
            before += math.prod(call.operation.kernel.shape) * positions(call)
    return before, after
