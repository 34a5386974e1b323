"""How channel ids pass through layers with kernels.

Each function is the `connect` of rows of the layer table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from amc_tf.graph.activations import activation_name
from amc_tf.graph.layer_rule import (
    Connector,
    Ids,
    Refusal,
    Roles,
    Signal,
    only,
    output_role,
    tie_blocks,
)
from amc_tf.graph.network import Call
from amc_tf.graph.probing import is_of_last_axis, mixing


def check_activation(
    c: Connector,
    operation: Any,
    out: Ids,
    out_shape: Sequence[Any],
    name: str = "activation",
    axes: Iterable[Ids] = (),
) -> None:
    """Freezes a layer's outputs if its activation mixes them, and axes that it may mix."""
    activation = getattr(operation, name, None)
    reason = mixing(activation, out_shape)
    if reason:
        told = activation_name(activation)
        c.freeze(out, f"activation {told!r} of {operation.name!r} {reason}")
    if not is_of_last_axis(activation):
        for ids in axes:
            c.freeze(ids, f"the activation of {operation.name!r} may mix them")


def check_kernel(layer: Any) -> None:
    """Refuses a kernel that is not plain."""
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Refusal("its kernel is quantised or carries LoRA weights")


def mixer(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes new output channels, each of which reads every input channel (Conv, Dense)."""
    layer, x = call.operation, only(inputs)
    check_kernel(layer)
    out = c.fresh(out_shape[-1])
    check_activation(c, layer, out, out_shape, axes=x.axes.values())
    return {"in": x.ids, "out": out}


def within_groups(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Unites the same positions of all groups of a grouped convolution, which keeps its groups."""
    layer, x = call.operation, only(inputs)
    check_kernel(layer)
    parts = x.ids.reshape(layer.groups, -1)
    for other in parts[1:]:
        c.unite(parts[0], other)
    out = np.tile(c.fresh(out_shape[-1] // layer.groups), layer.groups)
    check_activation(c, layer, out, out_shape)
    return {"in": x.ids, "part": parts[0], "out": out}


def whole_groups(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Unites the inputs and outputs of each group of a grouped convolution.

    Only whole groups are dropped.
    """
    layer, x = call.operation, only(inputs)
    check_kernel(layer)
    block = tie_blocks(c, x.ids, layer.groups)
    out = np.repeat(block, out_shape[-1] // layer.groups)
    check_activation(c, layer, out, out_shape)
    return {"in": x.ids, "block": block, "out": out}


def depthwise(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Repeats each id `depth_multiplier` times: output i * multiplier + j reads channel i."""
    x = only(inputs)
    out = np.repeat(x.ids, call.operation.depth_multiplier)
    check_activation(c, call.operation, out, out_shape)
    return {"in": x.ids, "out": out}


def separable(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Applies a depthwise kernel, then a pointwise kernel that makes new output channels."""
    x = only(inputs)
    out = c.fresh(out_shape[-1])
    check_activation(c, call.operation, out, out_shape)
    return {"in": x.ids, "mid": np.repeat(x.ids, call.operation.depth_multiplier), "out": out}


def embedding(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Makes new output channels, the columns of a table of which each index takes a row."""
    x = only(inputs)
    check_kernel(call.operation)
    for ids in (x.ids, *x.axes.values()):
        c.freeze(ids, f"{call.operation.name!r} reads them as indices")
    return {"in": x.ids, "out": c.fresh(out_shape[-1])}


def recurrent(gates: int) -> Callable[..., Roles]:
    """Makes the `connect` of a recurrent layer, each unit of which has one column for each gate.

    A unit reads every input channel and the last output of every unit. So without a unit the others
    compute what they would if nothing read it.
    """

    def connect(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
        layer, x = call.operation, only(inputs)
        if layer.stateful:
            raise Refusal("it keeps its state from one batch to the next")
        out = c.fresh(out_shape[-1])
        check_activation(c, layer, out, out_shape)
        check_activation(c, layer, out, out_shape, "recurrent_activation")
        outputs = {output_role(i): out for i in range(len(call.outputs))}
        return {"in": x.ids, "gates": np.tile(out, gates), **outputs}

    return connect
