"""A small network whose latency shows whether a device is steady."""

from __future__ import annotations

import functools

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_HEIGHT = _WIDTH = 28
_CHANNELS = 64


@functools.cache
def reference_model() -> bytes:
    """Makes one 3 x 3 convolution of 64 to 64 channels on 28 x 28: 29 million MACs.

    The file is built directly from the schema of the format, not converted. So measuring needs no
    TensorFlow, and the file is the same in every version of this package.

    Returns:
        Contents of a float32 ``.tflite`` file of batch 1.
    """
    # Small values of both signs; their sums are neither denormal nor infinite.
    kernel = np.random.default_rng(0).normal(0, 0.05, (_CHANNELS, 3, 3, _CHANNELS))
    image = [1, _HEIGHT, _WIDTH, _CHANNELS]
    tensors = [
        _tensor("image", image, 0),
        _tensor("kernel", list(kernel.shape), 1),
        _tensor("bias", [_CHANNELS], 2),
        _tensor("features", image, 0),
    ]
    options = schema.Conv2DOptionsT(
        padding=schema.Padding.SAME,
        strideH=1,
        strideW=1,
        fusedActivationFunction=schema.ActivationFunctionType.RELU,
    )
    convolution = schema.OperatorT(
        opcodeIndex=0,
        inputs=[0, 1, 2],
        outputs=[3],
        builtinOptionsType=schema.BuiltinOptions.Conv2DOptions,
        builtinOptions=options,
    )
    graph = schema.SubGraphT(
        name="main", tensors=tensors, inputs=[0], outputs=[3], operators=[convolution]
    )
    code = schema.OperatorCodeT(
        builtinCode=schema.BuiltinOperator.CONV_2D,
        deprecatedBuiltinCode=schema.BuiltinOperator.CONV_2D,
        version=1,
    )
    buffers = [
        schema.BufferT(),  # the first one is empty by convention
        schema.BufferT(data=_bytes(kernel)),
        schema.BufferT(data=_bytes(np.zeros(_CHANNELS))),
    ]
    model = schema.ModelT(
        version=3, description="reference", operatorCodes=[code], subgraphs=[graph], buffers=buffers
    )
    builder = flatbuffers.Builder(1 << 18)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: list[int], buffer: int) -> schema.TensorT:
    return schema.TensorT(
        name=name, shape=shape, type=schema.TensorType.FLOAT32, buffer=buffer, hasRank=True
    )


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.astype("<f4").tobytes(), np.uint8)
