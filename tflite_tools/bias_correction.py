"""Bias correction: each channel of an int8 file gets the mean that it has in the float file.

Rounded weights and activations shift the means of a layer's channels, and each layer passes its
shift on. In the order of the network, the shift of each layer is measured on samples and subtracted
from its bias (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2, but with data).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools import flatbuffer
from tflite_tools.intermediate import computed, operations, tensor_values

_WITH_BIAS = (
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
)


def correct_biases(
    content: bytes, float_content: bytes, samples: Sequence[Sequence[np.ndarray]]
) -> bytes:
    """Corrects the biases of an int8 file, which is run on all samples once for each layer.

    Args:
        content: the int8 file.
        float_content: the float32 file of the same model.
        samples: for each sample, a float array of batch 1 for each input; a few dozen samples.

    Returns:
        The file with corrected biases. A bias stays as it was if the float file does not name the
        output of its layer, or if layers share the bias.
    """
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    means = _means(float_content, samples)
    told = operations(means)
    wanted = {told[name]: mean for name, mean in means.items() if name in told}
    own = operations([flatbuffer.text(graph.tensors[i].name) for i in computed(graph)])
    uses = [int(i) for operator in graph.operators for i in operator.inputs]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if flatbuffer.kind(code) not in _WITH_BIAS:
            continue
        name = flatbuffer.text(graph.tensors[int(operator.outputs[0])].name)
        index = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
        target = wanted.get(own.get(name, ""))
        if index < 0 or uses.count(index) > 1 or target is None:
            continue
        bias = graph.tensors[index]
        if bias.type != schema.TensorType.INT32:
            continue
        (mean,) = _means(flatbuffer.write(model), samples, (name,)).values()
        steps = (target - mean) / np.asarray(bias.quantization.scale, np.float64)
        values = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32)
        # A mean that is not finite says nothing.
        corrected = _as_int32(values + np.where(np.isfinite(steps), np.round(steps), 0.0))
        # The bias gets a buffer of its own: layers without a bias may share a buffer of zeros.
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(corrected.tobytes(), np.uint8)
        bias.buffer = len(model.buffers)
        model.buffers.append(buffer)
    return flatbuffer.write(flatbuffer.without_unused(model))


def _as_int32(values: np.ndarray) -> np.ndarray:
    """Converts whole numbers of any size; a cast alone would wrap around."""
    limits = np.iinfo(np.int32)
    return np.clip(values, limits.min, limits.max).astype(np.int32)


def _means(
    content: bytes, samples: Sequence[Sequence[np.ndarray]], only: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Computes the channel means of float and quantised tensors, by their names."""
    sums: dict[str, np.ndarray] = {}
    for values in tensor_values(content, samples, only):
        for name, array in values.items():
            if array.ndim > 1 and array.dtype.kind == "f":
                mean = array.mean(axis=tuple(range(array.ndim - 1)), dtype=np.float64)
                sums[name] = sums.get(name, 0.0) + mean / len(samples)
    return sums
