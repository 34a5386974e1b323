"""Where the output of a layer can be watched: behind the linear operations that follow it.

A convolution's output often goes on through a batch norm into a residual
addition and then a rectifier. What counts is the value in front of the
rectifier, sum included; this module finds the way there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import activations
from keras import layers as kl
from keras.src.ops import nn as nn_ops
from keras.src.ops import numpy as numpy_ops

from amc_tf.graph.network import Call, Network, Value

_ADDITIONS = frozenset({kl.Add, kl.Subtract, kl.Average, numpy_ops.Add, numpy_ops.Subtract})
# Operations that are y -> a y + b in each channel when they read one tensor and do not train.
_AFFINE = frozenset(
    {
        kl.BatchNormalization,
        kl.Rescaling,
        kl.Identity,
        kl.ActivityRegularization,
        kl.Dropout,
        kl.SpatialDropout1D,
        kl.SpatialDropout2D,
        kl.SpatialDropout3D,
        kl.AlphaDropout,
        kl.GaussianDropout,
        kl.GaussianNoise,
        numpy_ops.Add,
        numpy_ops.Subtract,
        numpy_ops.Multiply,
        numpy_ops.Negative,
    }
)
_DIVISIONS = frozenset({numpy_ops.Divide, numpy_ops.TrueDivide})

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-math.inf, math.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class Path:
    """The linear way from a call's output to the value that is watched.

    Attributes:
        start: number of the output.
        calls: batch norms, additions and the like, in order; none if the
            output itself, before any fused activation, is watched.
        others: numbers of the values added on the way, all computed before the call.
        bounds: what the rectifier behind the path lets through.
    """

    start: int
    calls: tuple[Call, ...] = ()
    others: tuple[int, ...] = ()
    bounds: Bounds = UNBOUNDED

    @property
    def end(self) -> int:
        """Number of the value that is watched."""
        return self.calls[-1].outputs[0] if self.calls else self.start

    def run(self, values: Mapping[int, Any], operation: Callable[[Call], Callable]) -> Any:
        """The value at the end, given those of `start` and `others`.

        Args:
            values: tensors by number.
            operation: what is done in a call's place.
        """
        found = dict(values)
        for call in self.calls:
            args, kwargs = keras.tree.map_structure(
                lambda x: found[x.number] if isinstance(x, Value) else x, (call.args, call.kwargs)
            )
            found[call.outputs[0]] = operation(call)(*args, **kwargs)
        return found[self.end]


def follow(
    network: Network,
    call: Call,
    *,
    through_sums: bool = True,
) -> Path:
    """The longest linear path behind a call.

    It ends where a value has several readers, is the model's output, meets
    something not linear, or is added to a value not computed before `call`
    (the branch computed last repairs the sum).

    Args:
        network: the network.
        call: a convolution or Dense layer's.
        through_sums: whether additions of other values are passed.
    """
    number = start = call.outputs[0]
    activation = getattr(call.operation, "activation", None)
    if activation not in (None, activations.linear):
        return Path(start, bounds=_bounds(activation))
    computed = set(network.inputs)
    for earlier in network.calls:
        if earlier is call:
            break
        computed.update(earlier.outputs)
    calls: list[Call] = []
    others: list[int] = []
    while len(network.readers(number)) == 1 and number not in network.outputs:
        (reader,) = network.readers(number)
        joined = [n for n in reader.inputs if n != number]
        shapes = {tuple(network.tensors[n].shape) for n in (number, *joined, *reader.outputs)}
        if len(shapes) > 1 or not computed.issuperset(joined) or (joined and not through_sums):
            break
        if type(reader.operation) not in _ADDITIONS if joined else not _is_affine(reader):
            break
        calls.append(reader)
        others += joined
        number = reader.outputs[0]
    behind = {_bounds(reader.operation) for reader in network.readers(number)}
    bounds = behind.pop() if len(behind) == 1 and number not in network.outputs else UNBOUNDED
    return Path(start, tuple(calls), tuple(others), bounds)


def _is_affine(call: Call) -> bool:
    operation = call.operation
    if type(operation) in _DIVISIONS:
        return isinstance(call.args[0], Value)
    if type(operation) is kl.Activation:
        return operation.activation is activations.linear
    return type(operation) in _AFFINE


def _bounds(operation: Any) -> Bounds:
    """The range to which a rectifier clips; all numbers for anything else."""
    if type(operation) is kl.Activation:
        operation = operation.activation
    if operation is activations.relu or type(operation) is nn_ops.Relu:
        return 0.0, math.inf
    if operation is activations.relu6 or type(operation) is nn_ops.Relu6:
        return 0.0, 6.0
    if type(operation) is kl.ReLU and not operation.negative_slope and not operation.threshold:
        high = operation.max_value
        return 0.0, math.inf if high is None else float(high)
    return UNBOUNDED
