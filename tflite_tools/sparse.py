"""Weights of many zeros stored as what is not zero: the sparse encoding of the TFLite schema.

A sparse tensor holds its nonzero values and, for its last dimension, their positions in compressed
rows (https://ai.google.dev/edge/litert/models, `SparsityParameters` in schema.fbs). LiteRT's
kernels read dense weights, so that a DENSIFY operator stands before each reader, as TensorFlow's
converter writes it; it is done once, when the file is loaded. XNNPACK takes these operators for the
sign that it may multiply by what is not zero only: see `sparse_weights`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools import flatbuffer

_TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
}
# The schema's vectors of positions, the narrowest first.
_VECTORS = (
    (np.uint8, schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    (np.uint16, schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    (np.int32, schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
)
_OPERATOR = schema.BuiltinOperator
# Which input is the weight of the operators that read one; DEQUANTIZE is for 16-bit weights.
_WEIGHT_INPUT = {
    _OPERATOR.CONV_2D: 1,
    _OPERATOR.DEPTHWISE_CONV_2D: 1,
    _OPERATOR.FULLY_CONNECTED: 1,
    _OPERATOR.DEQUANTIZE: 0,
}
# XNNPACK refuses a file in which an operator of these gets such a weight from DENSIFY.
_REFUSED = {(_OPERATOR.FULLY_CONNECTED, schema.TensorType.INT8)}
# Bytes that a tensor and an operator more take in the file.
_OVERHEAD = 400


@dataclass(frozen=True)
class SparseWeight:
    """A weight in the sparse encoding.

    Attributes:
        name: of its tensor.
        shape: as if it were dense, outputs first.
        density: share of its values that is stored.
        bytes: of values and positions.
        dense_bytes: what the values would take with their zeros.
    """

    name: str
    shape: tuple[int, ...]
    density: float
    bytes: int
    dense_bytes: int


def encode(content: bytes) -> bytes:
    """Stores every weight sparsely that is smaller so.

    Args:
        content: a file of one subgraph, its weights dense and within the flatbuffer.

    Returns:
        The file, of the same function.

    Raises:
        ValueError: no weight would be smaller.
    """
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    kinds = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    readers: dict[int, set[int]] = {}
    for operator in graph.operators:
        kind = kinds[operator.opcodeIndex]
        if kind in _WEIGHT_INPUT:
            readers.setdefault(int(operator.inputs[_WEIGHT_INPUT[kind]]), set()).add(kind)
    users = [int(t.buffer) for t in graph.tensors]
    densified: dict[int, int] = {}
    for index in sorted(readers):
        tensor = graph.tensors[index]
        data = model.buffers[tensor.buffer].data
        # A bias is not worth an operator; a buffer that two tensors share would have to be copied.
        flat = data is None or len(tensor.shape) < 2
        if flat or tensor.type not in _TYPES or users.count(int(tensor.buffer)) > 1:
            continue
        if any((kind, tensor.type) in _REFUSED for kind in readers[index]):
            continue
        array = np.frombuffer(bytes(data), _TYPES[tensor.type]).reshape(tensor.shape)
        values, rows = _compressed(array)
        if values.nbytes + _nbytes(rows) + _OVERHEAD > array.nbytes:
            continue
        densified[index] = len(graph.tensors)
        graph.tensors.append(_dense_twin(tensor))
        model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
        tensor.sparsity = _parameters(array.shape, rows)
        tensor.quantization = None  # the twin has it
    if not densified:
        raise ValueError(
            "no weight of the file has enough zeros for the sparse encoding to be smaller: "
            "expected at least about a half, or more where a kernel has few input channels; "
            "prune the model's weights first (amc-sparsify)."
        )
    for operator in graph.operators:
        operator.inputs = [densified.get(int(i), int(i)) for i in operator.inputs]
    graph.operators = [*_densify(model, densified), *graph.operators]
    return flatbuffer.write(model)


def sparse_weights(content: bytes) -> list[SparseWeight]:
    """The weights that a file stores sparsely.

    Whether a runtime multiplies by their nonzero values only is another question. XNNPACK, on which
    LiteRT runs on CPUs, does so for 1x1 convolutions in float32 (float16 where the processor
    computes in it) of a chain that begins with a 3x3 convolution of stride 2 on three channels,
    padded by one pixel on each side; goes on through 1x1 and depthwise 3x3 or 5x5 convolutions
    padded alike on all sides, additions and multiplications; ends in a global mean; and has more
    than two thirds of zeros in its 1x1 kernels (`xnn_subgraph_rewrite_for_nchw`). Everything else,
    int8 included, it makes dense again when the file is loaded: smaller to store, not faster.
    """
    model = flatbuffer.read(content)
    return [
        _described(model, tensor)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.sparsity is not None
    ]


def _described(model: Any, tensor: Any) -> SparseWeight:
    stored = len(model.buffers[tensor.buffer].data)
    width = np.dtype(_TYPES[tensor.type]).itemsize
    size = math.prod(int(s) for s in tensor.shape)
    rows = tensor.sparsity.dimMetadata[-1]
    return SparseWeight(
        name=flatbuffer.text(tensor.name),
        shape=tuple(int(s) for s in tensor.shape),
        density=stored / width / size,
        bytes=stored + _nbytes((rows.arraySegments.values, rows.arrayIndices.values)),
        dense_bytes=width * size,
    )


def _compressed(array: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Nonzero values, and where each row of the last dimension starts and has them."""
    rows = array.reshape(-1, array.shape[-1])
    kept = rows != 0
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return rows[kept], (_narrow(starts), _narrow(np.nonzero(kept)[1]))


def _narrow(positions: np.ndarray) -> np.ndarray:
    most = positions.max(initial=0)
    return positions.astype(next(d for d, _, _ in _VECTORS if most <= np.iinfo(d).max))


def _nbytes(rows: tuple[Any, Any]) -> int:
    return sum(np.asarray(part).nbytes for part in rows)


def _parameters(shape: tuple[int, ...], rows: tuple[np.ndarray, np.ndarray]) -> Any:
    parameters = schema.SparsityParametersT()
    parameters.traversalOrder = np.arange(len(shape), dtype=np.int32)
    parameters.dimMetadata = []
    for size in shape[:-1]:
        dense = schema.DimensionMetadataT()
        dense.format, dense.denseSize = schema.DimensionType.DENSE, size
        parameters.dimMetadata.append(dense)
    last = schema.DimensionMetadataT()
    last.format = schema.DimensionType.SPARSE_CSR
    last.arraySegmentsType, last.arraySegments = _vector(rows[0])
    last.arrayIndicesType, last.arrayIndices = _vector(rows[1])
    parameters.dimMetadata.append(last)
    return parameters


def _vector(positions: np.ndarray) -> tuple[int, Any]:
    kind, vector = next((k, v()) for d, k, v in _VECTORS if d == positions.dtype)
    vector.values = positions
    return kind, vector


def _dense_twin(tensor: Any) -> Any:
    twin = schema.TensorT()
    twin.shape, twin.type, twin.quantization = tensor.shape, tensor.type, tensor.quantization
    twin.name = f"{flatbuffer.text(tensor.name)};densify"
    twin.buffer = 0  # the schema's empty one
    return twin


def _densify(model: Any, densified: dict[int, int]) -> list[Any]:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DENSIFY
    code.version = 1
    model.operatorCodes.append(code)
    operators = []
    for sparse, dense in densified.items():
        operator = schema.OperatorT()
        operator.opcodeIndex = len(model.operatorCodes) - 1
        operator.inputs, operator.outputs = [sparse], [dense]
        operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
        operator.builtinOptions = schema.DensifyOptionsT()
        operators.append(operator)
    return operators
