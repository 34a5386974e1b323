"""The sparse encoding of the TFLite schema: of weights with many zeros, only the rest is stored.

A sparse tensor holds its nonzero values and, for its last dimension, their positions in compressed
rows (https://ai.google.dev/edge/litert/models, `SparsityParameters` in schema.fbs). LiteRT's
kernels read dense weights. So a DENSIFY operator stands before each reader, as TensorFlow's
converter writes it; it runs once, when the file is loaded. To XNNPACK these operators are the sign
that it may multiply by the nonzero values only: see `sparse_weights`.
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
# Operators that read a weight, and which of their inputs it is; DEQUANTIZE is for 16-bit weights.
_WEIGHT_INPUT = {
    _OPERATOR.CONV_2D: 1,
    _OPERATOR.DEPTHWISE_CONV_2D: 1,
    _OPERATOR.FULLY_CONNECTED: 1,
    _OPERATOR.DEQUANTIZE: 0,
}
# XNNPACK refuses a file in which such an operator gets a weight of this type from DENSIFY.
_REFUSED = {(_OPERATOR.FULLY_CONNECTED, schema.TensorType.INT8)}
# Bytes that one more tensor and one more operator take in the file.
_OVERHEAD = 400


@dataclass(frozen=True)
class SparseWeight:
    """A weight in the sparse encoding.

    Attributes:
        name: name of its tensor.
        shape: shape of the dense weight, outputs first.
        density: share of its values that is stored.
        bytes: size of the stored values and positions, in bytes.
        dense_bytes: size of the dense weight, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    density: float
    bytes: int
    dense_bytes: int


def encode(content: bytes) -> bytes:
    """Stores every weight sparsely that becomes smaller by it.

    Args:
        content: a file of one subgraph, whose weights are dense and within the flatbuffer.

    Returns:
        A file that computes the same.

    Raises:
        ValueError: no weight would become smaller, or sparse kernels would misread the network.
    """
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    _pooled_as_dense(model)
    kinds = _kinds(model)
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
        # A bias is too small for one more operator; a shared buffer would have to be copied.
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
        tensor.quantization = None  # its dense twin has it
    if not densified:
        raise ValueError(
            "no weight of the file has enough zeros for the sparse encoding to be smaller: "
            "about half of the weights must be zero, more where a kernel has few input channels; "
            "prune the model's weights first (amc-sparsify)."
        )
    if any(graph.tensors[index].type != schema.TensorType.INT8 for index in densified):
        _refuse_images(model)
    for operator in graph.operators:
        operator.inputs = [densified.get(int(i), int(i)) for i in operator.inputs]
    graph.operators = [*_densify(model, densified), *graph.operators]
    return flatbuffer.write(model)


def sparse_weights(content: bytes) -> list[SparseWeight]:
    """Lists the weights that a file stores sparsely.

    Whether a runtime multiplies by their nonzero values only is another question. XNNPACK, on which
    LiteRT runs on CPUs, does so for 1x1 convolutions in float32, and in float16 where the processor
    computes in it. The convolutions must be in a chain of operators which

    * begins with a 3x3 convolution of stride 2 on three channels, padded by one pixel on each side;
    * goes on through additions, multiplications, 1x1 convolutions, and depthwise 3x3 or 5x5
      convolutions with the same padding on all sides;
    * ends in a global mean;
    * has more than two thirds of zeros in its 1x1 kernels (`xnn_subgraph_rewrite_for_nchw`).

    XNNPACK never does so on x86 processors with AVX, where it takes its dense kernels to be faster
    (`xnn_is_chw_compatible_config`). It makes everything else, int8 included, dense again when the
    file is loaded: such a file is smaller, but not faster.
    """
    model = flatbuffer.read(content)
    return [
        _described(model, tensor)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.sparsity is not None
    ]


def _refuse_images(model: Any) -> None:
    """Refuses networks that XNNPACK's sparse kernels get wrong.

    The kernels store an image channel by channel, and do not convert it back where it is an output
    of the file.
    """
    graph = model.subgraphs[0]
    pooled = any(
        _kinds(model)[operator.opcodeIndex] == _OPERATOR.MEAN for operator in graph.operators
    )
    for index in graph.outputs:
        tensor = graph.tensors[int(index)]
        if pooled and tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) == 4:
            raise ValueError(
                "sparse=True in float is not for a network with a global mean and an output of "
                f"the shape {tuple(map(int, tensor.shape))}: XNNPACK's sparse kernels would give "
                "wrong values; choose 'int8', or convert each output as a model of its own."
            )


def _kinds(model: Any) -> list[int]:
    return [flatbuffer.kind(c) for c in model.operatorCodes]


def _pooled_as_dense(model: Any) -> None:
    """Replaces float 1x1 convolutions on a single position by fully connected layers.

    Both compute the same sum. XNNPACK would take the convolution after a global mean into the chain
    that it runs sparsely, and then refuse the file.
    """
    graph = model.subgraphs[0]
    kinds = _kinds(model)
    producer = {int(o): operator for operator in graph.operators for o in operator.outputs}
    operators = []
    for operator in graph.operators:
        image, weight = (graph.tensors[int(i)] for i in [*operator.inputs, 0, 0][:2])
        if (
            kinds[operator.opcodeIndex] != _OPERATOR.CONV_2D
            or image.type != schema.TensorType.FLOAT32
            or not tuple(image.shape[1:3]) == tuple(weight.shape[1:3]) == (1, 1)
        ):
            operators.append(operator)
            continue
        tensors = [weight]
        if int(operator.inputs[1]) in producer:  # a DEQUANTIZE of 16-bit weights
            tensors.append(graph.tensors[int(producer[int(operator.inputs[1])].inputs[0])])
        for tensor in tensors:
            tensor.shape = np.array([weight.shape[0], weight.shape[-1]], np.int32)
        before, after = int(operator.inputs[0]), int(operator.outputs[0])
        rows = [_reshaped(model, graph.tensors[i]) for i in (before, after)]
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
        operator.builtinOptions = options
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.opcodeIndex = _operator_code(model, _OPERATOR.FULLY_CONNECTED, version=1)
        operator.inputs = [rows[0], *(int(i) for i in operator.inputs[1:])]
        operator.outputs = [rows[1]]
        operators += [
            _reshape(model, before, rows[0]),
            operator,
            _reshape(model, rows[1], after),
        ]
    graph.operators = operators


def _reshaped(model: Any, tensor: Any) -> int:
    """Adds a tensor of vectors (images, channels) for one with a single position; its index."""
    vectors = schema.TensorT()
    vectors.name = f"{flatbuffer.text(tensor.name)};vector"
    vectors.type, vectors.buffer = tensor.type, 0
    vectors.shape = np.array([tensor.shape[0], tensor.shape[-1]], np.int32)
    model.subgraphs[0].tensors.append(vectors)
    return len(model.subgraphs[0].tensors) - 1


def _reshape(model: Any, source: int, target: int) -> Any:
    """Makes an operator that reshapes one tensor to another; the number of images stays open."""
    tensors = model.subgraphs[0].tensors
    shape = np.array([-1, *tensors[target].shape[1:]], np.int32)
    buffer, constant = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(shape.tobytes(), np.uint8)
    model.buffers.append(buffer)
    constant.name = f"{flatbuffer.text(tensors[target].name)};shape"
    constant.type, constant.buffer = schema.TensorType.INT32, len(model.buffers) - 1
    constant.shape = np.array([len(shape)], np.int32)
    tensors.append(constant)
    operator = schema.OperatorT()
    operator.opcodeIndex = _operator_code(model, _OPERATOR.RESHAPE, version=1)
    operator.inputs, operator.outputs = [source, len(tensors) - 1], [target]
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = shape
    return operator


def _operator_code(model: Any, kind: int, version: int) -> int:
    """Returns the index of an operator's code, and adds the code if the file lacks it."""
    if kind in _kinds(model):
        index = _kinds(model).index(kind)
        model.operatorCodes[index].version = max(model.operatorCodes[index].version, version)
        return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


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
    """Returns the nonzero values, where each row starts among them, and their columns."""
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
    code = _operator_code(model, _OPERATOR.DENSIFY, version=1)
    operators = []
    for sparse, dense in densified.items():
        operator = schema.OperatorT()
        operator.opcodeIndex = code
        operator.inputs, operator.outputs = [sparse], [dense]
        operator.builtinOptionsType = schema.BuiltinOptions.DensifyOptions
        operator.builtinOptions = schema.DensifyOptionsT()
        operators.append(operator)
    return operators
