"""MACs of layers that are known and never pruned.

Each function is the `fixed_macs` of rows of the layer table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from amc_tf.graph.layer_rule import positions, volume
from amc_tf.graph.network import Call

Shape = tuple[int | None, ...]


def einsum(call: Call, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Multiplies every input element by every element of the kernel's other axes."""
    layer = call.operation
    x, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
    sizes = zip(kernel, layer.kernel.shape, strict=True)
    others = math.prod(size for letter, size in sizes if letter not in x)
    count = volume(inputs[0][1:])
    return None if count is None else count * others


def attention(call: Call, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Adds the projections of query, key, value and output, and the attention's two products."""
    layer = call.operation
    query, value = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    targets, sources = positions(query), positions(value)
    if targets is None or sources is None:
        return None
    heads = layer.num_heads
    across = heads * (layer.key_dim + layer.value_dim)
    on_target = query[-1] * heads * layer.key_dim + heads * layer.value_dim * output[-1]
    key = inputs[2] if len(inputs) > 2 else value
    on_source = heads * (key[-1] * layer.key_dim + value[-1] * layer.value_dim)
    return targets * on_target + sources * on_source + targets * sources * across


def recurrent(call: Call, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Counts the kernel and the recurrent kernel once for every time step."""
    steps = inputs[0][1]
    matrices = [w.shape for w in call.operation.weights if w.name.endswith("kernel")]
    return None if steps is None else steps * sum(math.prod(shape) for shape in matrices)
