"""Where a network adds what a block computes to what the block reads."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator

from keras import layers as kl

from amc_tf.graph.keras_structure import numpy_ops
from amc_tf.graph.network import Call, Network

_ADDS = (kl.Add, numpy_ops.Add)


class Unfoldable(Exception):
    """The reason why an addition stays."""


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """An addition of two chains of calls that begin at one value, the block's input.

    Attributes:
        add: the addition.
        fork: number of the block's input.
        branch: calls of the longer chain, in order.
        shortcut: calls of the other one; none if it is the input itself.
    """

    add: Call
    fork: int
    branch: tuple[Call, ...]
    shortcut: tuple[Call, ...]


def additions(network: Network) -> Iterator[Call]:
    """Yields the calls that add tensors."""
    for call in network.calls:
        if type(call.operation) in _ADDS and len(call.inputs) > 1:
            yield call


def block_of(network: Network, add: Call) -> Block:
    """Returns the block that an addition ends.

    Raises:
        Unfoldable: it ends none.
    """
    if len(add.inputs) > 2:
        raise Unfoldable(f"it adds {len(add.inputs)} values; only sums of two are folded")
    shapes = {tuple(network.tensors[n].shape) for n in (*add.inputs, *add.outputs)}
    if len(shapes) > 1:
        raise Unfoldable("it adds values of different shapes")
    makers = {number: call for call in network.calls for number in call.outputs}
    ends, chains = [], []
    for number in add.inputs:
        chain: list[Call] = []
        while _has_one_reader(network, number) and number in makers:
            call = makers[number]
            if len(call.inputs) != 1 or len(call.outputs) != 1:
                break
            chain.append(call)
            number = call.inputs[0]
        ends.append(number)
        chains.append(tuple(reversed(chain)))
    if ends[0] != ends[1]:
        names = [
            network.told(makers[number].operation) if number in makers else "the model's input"
            for number in ends
        ]
        raise Unfoldable(
            "what it adds is not made of one value by two chains of layers: they lead back to "
            f"{names[0]} and {names[1]}"
        )
    shortcut, branch = sorted(chains, key=_work)
    times = Counter(id(call.operation) for call in network.calls)
    for call in (*branch, *shortcut):
        if times[id(call.operation)] > 1 and getattr(call.operation, "weights", ()):
            raise Unfoldable(f"{network.told(call.operation)} is called several times")
    return Block(add, ends[0], branch, shortcut)


def _has_one_reader(network: Network, number: int) -> bool:
    return len(network.readers(number)) == 1 and number not in network.outputs


def _work(chain: tuple[Call, ...]) -> tuple[int, int]:
    """Returns what tells a branch from a shortcut: how many kernels it has, and their elements."""
    kernels = [call.operation.kernel for call in chain if hasattr(call.operation, "kernel")]
    return len(kernels), sum(math.prod(kernel.shape) for kernel in kernels)
