"""Ranges of activations that every kernel accepts.

A layer that is dead on the calibration data, say a ReLU behind a large negative bias, has a range
of 0, from which the converter makes a scale of about 8e-9. LiteRT's default kernels (XNNPACK)
refuse the *whole* file of such a network: they multiply sums by `scale of the input * scale of the
weights / scale of the output` in fixed point, and take no factor from 256 on. Its built-in kernels
run it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools import flatbuffer

_B = schema.BuiltinOperator
# Half of the least factor that XNNPACK refuses (`requantization_scale` of its operators, 256). A
# smaller limit would cost precision where a few large filters are dead and small ones are not: an
# output has one scale, but each filter its own.
GREATEST_FACTOR = 128.0
# Operators that multiply their first input by their second, with the number of the operand's steps.
_PRODUCTS = {
    _B.CONV_2D: 127,
    _B.DEPTHWISE_CONV_2D: 127,
    _B.FULLY_CONNECTED: 127,
    _B.CONV_3D: 127,
    _B.BATCH_MATMUL: 255,
    _B.MUL: 255,
}
# The place of a transposed convolution's activations among its inputs, which begin with a shape.
_TRANSPOSED = _B.TRANSPOSE_CONV
# Their outputs have the scale of their inputs.
_SAME_SCALE = frozenset(
    (
        *(_B.RESHAPE, _B.MAX_POOL_2D, _B.PAD, _B.PADV2, _B.MIRROR_PAD, _B.TRANSPOSE, _B.SQUEEZE),
        *(_B.STRIDED_SLICE, _B.SLICE, _B.SPLIT, _B.SPLIT_V, _B.UNPACK, _B.EXPAND_DIMS, _B.GATHER),
        *(_B.SPACE_TO_DEPTH, _B.DEPTH_TO_SPACE, _B.SPACE_TO_BATCH_ND, _B.BATCH_TO_SPACE_ND),
        *(_B.RESIZE_BILINEAR, _B.RESIZE_NEAREST_NEIGHBOR, _B.AVERAGE_POOL_2D, _B.TILE),
        *(_B.BROADCAST_TO, _B.RELU, _B.RELU6, _B.REVERSE_V2),
    )
)
_STEPS = 255  # of an activation in int8


def widened(content: bytes) -> bytes:
    """Widens the ranges of a calibrated file from which int8 kernels could make no scale.

    Args:
        content: a float32 file, whose activations have ranges (`min` and `max`).

    Returns:
        The file, with the range of each product so wide that its factor is at most
        `GREATEST_FACTOR`; the same bytes if all are.
    """
    model = flatbuffer.read(content)
    changed = False
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            changed |= _widen(model, graph, operator)
    return flatbuffer.write(model) if changed else content


def _widen(model: Any, graph: Any, operator: Any) -> bool:
    """Widens the outputs of one operator; tells whether it had to."""
    code = model.operatorCodes[operator.opcodeIndex]
    kind = flatbuffer.kind(code)
    inputs = [graph.tensors[i] if i >= 0 else None for i in operator.inputs]
    if kind in _SAME_SCALE:
        # A range that was widened before stays as wide; others have the same values on both sides.
        before = _range(inputs[0])
        if before is None or not getattr(inputs[0], "widened", False):
            return False
        least, low = before[1] - before[0], before[0]
    elif kind == _TRANSPOSED or kind in _PRODUCTS:
        a, b = (inputs[2], inputs[1]) if kind == _TRANSPOSED else inputs[:2]
        first, second = (_scale(model, x, _PRODUCTS.get(kind, 127)) for x in (a, b))
        if first is None or second is None:
            return False
        least, low = _STEPS * first * second / GREATEST_FACTOR, None
    else:
        return False
    found = [_widen_tensor(graph.tensors[i], least, low) for i in operator.outputs]
    return any(found)


def _widen_tensor(tensor: Any, least: float, low: float | None) -> bool:
    found = _range(tensor)
    if found is None or found[1] - found[0] >= least:
        return False
    # A range of nothing but 0 goes to where the values of a ReLU are, and if they were to be
    # negative, as far to the other side.
    if low is None:
        low = -least if found[0] < 0 else 0.0
        high = least if found[1] > 0 or found[0] == 0 else 0.0
    else:
        high = low + least
    tensor.quantization.min = np.array([low], np.float32)
    tensor.quantization.max = np.array([high], np.float32)
    tensor.widened = True
    return True


def _range(tensor: Any) -> tuple[float, float] | None:
    """Returns the range of an activation, which always holds 0, or None if it has none."""
    quantization = None if tensor is None else tensor.quantization
    if quantization is None or quantization.min is None or len(quantization.min) != 1:
        return None
    return min(float(quantization.min[0]), 0.0), max(float(quantization.max[0]), 0.0)


def _scale(model: Any, tensor: Any, steps: int) -> float | None:
    """Returns the largest scale of an operand: of its range, or of constant filters."""
    found = _range(tensor)
    if found is not None:
        return (found[1] - found[0]) / _STEPS
    data = None if tensor is None else model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    values = np.frombuffer(bytes(data), np.float32)
    return float(np.abs(values).max()) / steps if values.size else None
