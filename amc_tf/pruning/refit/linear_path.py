"""The value that a refit restores: behind the linear operations that follow a layer.

The output of a convolution often goes through a batch norm into a residual
addition and then into a rectifier. What counts is the value in front of the
rectifier, after the addition. This module finds the path to it.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import keras
import numpy as np

from amc_tf.graph.activations import is_linear
from amc_tf.graph.constants import is_alike_at_positions
from amc_tf.graph.layer_kinds import UNBOUNDED, Bounds
from amc_tf.graph.layer_table import bounds_of, kind_of
from amc_tf.graph.network import Call, Network, Value
from amc_tf.pruning.refit.promises import broken_affine

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Path:
    """The linear path from a call's output to the value that is restored.

    Attributes:
        start: number of the output.
        calls: batch norms, additions and the like, in order; none if the
            output itself, before any fused activation, is restored.
        others: numbers of the values added on the path, all computed before the call.
        bounds: range that the rectifier behind the path lets through.
    """

    start: int
    calls: tuple[Call, ...] = ()
    others: tuple[int, ...] = ()
    bounds: Bounds = UNBOUNDED

    @property
    def end(self) -> int:
        """Number of the value that is restored."""
        return self.calls[-1].outputs[0] if self.calls else self.start

    def affine(self, network: Network) -> Affine:
        """Expresses the path as an affine function of what it reads.

        Its operations are affine, and treat each position and each channel on its own. So it is
        enough to run them on zeros and ones, whatever they are.
        """
        shape = network.tensors[self.start].shape
        outputs = shape[-1]
        if not self.calls:
            return Affine(np.ones(outputs, np.float32), np.zeros(outputs, np.float32))
        # One run of a few rows: of zeros, of the output alone, and of each other value alone.
        probes = np.eye(2 + len(self.others), dtype=np.float32)
        axes = [1] * (len(shape) - 2)
        found: dict[int, Any] = {
            number: np.broadcast_to(probe.reshape(-1, *axes, 1), (len(probe), *axes, outputs))
            for number, probe in zip((self.start, *self.others), probes[1:], strict=True)
        }
        for call in self.calls:
            args, kwargs = keras.tree.map_structure(
                lambda x: found[x.number] if isinstance(x, Value) else x, (call.args, call.kwargs)
            )
            found[call.outputs[0]] = call.operation(*args, **kwargs)
        base, *alone = np.asarray(found[self.end], np.float32).reshape(len(probes), outputs)
        slope, *factors = (end - base for end in alone)
        return Affine(slope, base, tuple(zip(self.others, factors, strict=True)))


@dataclasses.dataclass(frozen=True, eq=False)
class Affine:
    """A path as `slope * output + base`, plus each other value times its factor.

    Attributes:
        slope: factor of each output, float32 (outputs,).
        base: value at the end where everything else is zero, float32 (outputs,).
        factors: number and factor (outputs,) of each value that is added on the path.
    """

    slope: np.ndarray
    base: np.ndarray
    factors: tuple[tuple[int, np.ndarray], ...] = ()


def follow(
    network: Network,
    call: Call,
    *,
    through_sums: bool = True,
) -> Path:
    """Finds the longest linear path behind a call.

    It ends at a value that has several readers, is an output of the model, is
    read by something that is not linear, or is added to a value that is not
    computed before `call` (the branch computed last repairs the sum).

    Args:
        network: the network.
        call: a call of a convolution or Dense layer.
        through_sums: whether the path goes through additions of other values.
    """
    number = start = call.outputs[0]
    activation = getattr(call.operation, "activation", None)
    if not is_linear(activation):
        return Path(start, bounds=bounds_of(activation))
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
        if not _is_linear(network, reader, bool(joined)):
            break
        calls.append(reader)
        others += joined
        number = reader.outputs[0]
    behind = {bounds_of(reader.operation) for reader in network.readers(number)}
    bounds = behind.pop() if len(behind) == 1 and number not in network.outputs else UNBOUNDED
    return Path(start, tuple(calls), tuple(others), bounds)


def _is_linear(network: Network, call: Call, joins: bool) -> bool:
    """Returns whether a call is affine in what it reads: one tensor, or several that it joins."""
    kind = kind_of(call.operation)
    if not (kind.sums if joins else kind.is_affine(call)) or not is_alike_at_positions(call):
        return False
    reason = broken_affine(network, call)
    if reason is not None:
        _LOG.warning("%s is not followed: %s", network.told(call.operation), reason)
    return reason is None
