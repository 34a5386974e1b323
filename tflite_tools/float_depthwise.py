"""Depthwise layers of "dynamic" files stay float.

The converter stores their weights in int8, too. But XNNPACK has no kernel for such a layer, so that
LiteRT's reference kernel runs it, several times as slowly as the float one. Depthwise weights are a
small part of a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools import flatbuffer

_DEPTHWISE = schema.BuiltinOperator.DEPTHWISE_CONV_2D
_WEIGHTS = 1  # their place among the inputs


def with_float_depthwise(content: bytes, float_content: bytes) -> bytes:
    """Gives the depthwise layers of a file the weights of the float32 file of the same model.

    Args:
        content: a "dynamic" file.
        float_content: the float32 file; layers are matched by the names of their outputs.
    """
    model, source = flatbuffer.read(content), flatbuffer.read(float_content)
    wanted = {name: bytes(source.buffers[w.buffer].data) for name, w in _weights(source)}
    for name, weights in _weights(model):
        if weights.type == schema.TensorType.INT8 and name in wanted:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(wanted[name], np.uint8)
            weights.buffer = len(model.buffers)
            weights.type, weights.quantization = schema.TensorType.FLOAT32, None
            model.buffers.append(buffer)
    return flatbuffer.write(flatbuffer.sharing(model))


def _weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields the name of the output, and the weights, of each depthwise layer."""
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            code = model.operatorCodes[operator.opcodeIndex]
            if flatbuffer.kind(code) == _DEPTHWISE:
                output = graph.tensors[int(operator.outputs[0])]
                yield flatbuffer.text(output.name), graph.tensors[int(operator.inputs[_WEIGHTS])]
