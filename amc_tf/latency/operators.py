"""Operators of a TFLite file as text, and text as a TFLite file.

The text holds everything that an operator's time depends on, and nothing else:
codes, options and fused activations, shapes and types, which tensors are
constant, and the values of those constants that define the operation (axes,
paddings, new shapes). Weights, names and scales are left out. So equal
operators of different networks have one text, which is the key of a
measurement. A file that runs the operators, with random weights, is made from
the text alone, with the schema of the format and without TensorFlow.

The text is JSON:

    {"inputs": [0], "outputs": [3],
     "operators": [{"code": "CONV_2D", "version": 1, "inputs": [0, 1, 2], "outputs": [3],
                    "options": ["Conv2DOptions", {"strideH": 1, ...}]}],
     "tensors": [{"type": "FLOAT32", "shape": [1, 28, 28, 64]},
                 {"type": "FLOAT32", "shape": [64, 3, 3, 64], "constant": true}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from amc_tf.errors import AmcError
from tflite_tools import flatbuffer

_TYPES = {
    "FLOAT32": "<f4",
    "INT32": "<i4",
    "INT64": "<i8",
    "INT8": "|i1",
    "UINT8": "|u1",
    "BOOL": "|b1",
}
# XNNPACK runs the key and a value that follows it as one operator.
_RUN_TOGETHER = {"PAD": ("CONV_2D", "DEPTHWISE_CONV_2D")}


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_TYPE_NAMES = _names(schema.TensorType)
_CODE_NAMES = _names(schema.BuiltinOperator)


def text_of(operators: Mapping[str, Any]) -> str:
    """Returns the text of operators that `read` or `blocks` returned."""
    return json.dumps(operators, separators=(",", ":"), sort_keys=True)


def read(file: bytes) -> dict[str, Any]:
    """Reads all operators of a float32 file.

    Args:
        file: contents of a .tflite file.

    Returns:
        The JSON object described above. Tensors are numbered in the order in
        which operators name them. A constant that several operators share is
        listed once for each of them.

    Raises:
        AmcError: the file has control flow, custom operators or quantised tensors.
    """
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    if len(model.subgraphs) != 1:
        raise AmcError("latency is measured on files without control flow; this file has some")
    graph = model.subgraphs[0]
    numbers: dict[int, int] = {}
    tensors: list[dict[str, Any]] = []

    def number(index: int) -> int:
        if index < 0:  # an input that is left out, such as a bias
            return -1
        data = model.buffers[graph.tensors[index].buffer].data
        constant = data is not None and len(data) > 0
        if constant or index not in numbers:
            numbers[index] = len(tensors)
            tensors.append(_described(graph.tensors[index], data if constant else None))
        return numbers[index]

    inputs = [number(i) for i in graph.inputs]
    operators = [_operator(model, operator, number) for operator in graph.operators]
    outputs = [number(i) for i in graph.outputs]
    return {"inputs": inputs, "outputs": outputs, "operators": operators, "tensors": tensors}


def _operator(model: Any, operator: Any, number: Any) -> dict[str, Any]:
    code = model.operatorCodes[operator.opcodeIndex]
    name = _CODE_NAMES[flatbuffer.kind(code)]
    if name == "CUSTOM" or operator.builtinOptions2Type:
        raise AmcError(f"the operator {code.customCode or name} cannot be timed on its own")
    described = {
        "code": name,
        "version": code.version,
        "inputs": [number(int(i)) for i in operator.inputs],
        "outputs": [number(int(i)) for i in operator.outputs],
    }
    options = operator.builtinOptions
    if options is not None:
        fields = {name: _plain(value) for name, value in vars(options).items()}
        set_ = {name: value for name, value in fields.items() if value is not None}
        described["options"] = [type(options).__name__.removesuffix("T"), set_]
    return described


def _plain(value: Any) -> Any:
    """Returns an option as a JSON value."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (list, np.ndarray)):
        return np.asarray(value).tolist()
    return value.item() if isinstance(value, np.generic) else value


def _described(tensor: Any, data: np.ndarray | None) -> dict[str, Any]:
    kind = _TYPE_NAMES[tensor.type]
    quantised = tensor.quantization is not None and tensor.quantization.scale is not None
    if kind not in _TYPES or quantised or tensor.sparsity is not None:
        raise AmcError(
            f"tensor {tensor.name!r} is {'quantised ' * quantised}{kind}; the latency of operators "
            "is measured on float32 files"
        )
    shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
    described: dict[str, Any] = {"type": kind, "shape": shape}
    if data is None:
        return described
    if kind == "FLOAT32" and shape:
        return {**described, "constant": True}
    return {**described, "values": np.frombuffer(bytes(data), _TYPES[kind]).tolist()}


def blocks(operators: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Splits operators into those that run on their own.

    Args:
        operators: operators of a whole file, as `read` returns them.

    Returns:
        JSON objects of the same form, in order. Each has one operator, or
        several that the runtime joins.
    """
    readers: dict[int, list[int]] = {}
    for i, operator in enumerate(operators["operators"]):
        for number in operator["inputs"]:
            readers.setdefault(number, []).append(i)
    joined: list[list[int]] = []
    home: dict[int, list[int]] = {}
    for i, operator in enumerate(operators["operators"]):
        block = home.pop(i, [])
        block.append(i)
        following = readers.get(operator["outputs"][0], [])
        together = _RUN_TOGETHER.get(operator["code"], ())
        if len(following) == 1 and operators["operators"][following[0]]["code"] in together:
            home[following[0]] = block
        else:
            joined.append(block)
    return [_cut(operators, block, readers) for block in joined]


def _cut(
    operators: Mapping[str, Any], chosen: Sequence[int], readers: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    """Takes some of the operators, and renumbers their tensors."""
    numbers: dict[int, int] = {-1: -1}
    parts = [operators["operators"][i] for i in chosen]
    for part in parts:
        for number in (*part["inputs"], *part["outputs"]):
            numbers.setdefault(number, len(numbers) - 1)
    tensors = [operators["tensors"][n] for n in numbers if n >= 0]
    made = {n for part in parts for n in part["outputs"]}
    read_ = [n for part in parts for n in part["inputs"] if n >= 0 and n not in made]
    inputs = dict.fromkeys(n for n in read_ if not _is_constant(operators["tensors"][n]))
    outputs = [
        n
        for n in sorted(made)
        if n in operators["outputs"]
        or not set(readers.get(n, ())) <= set(chosen)
        or n not in readers
    ]
    return {
        "inputs": [numbers[n] for n in inputs],
        "outputs": [numbers[n] for n in outputs],
        "operators": [
            {**part, **{side: [numbers[n] for n in part[side]] for side in ("inputs", "outputs")}}
            for part in parts
        ],
        "tensors": tensors,
    }


def _is_constant(tensor: Mapping[str, Any]) -> bool:
    return "constant" in tensor or "values" in tensor


def label(operators: Mapping[str, Any]) -> str:
    """Describes operators in a few words: their codes, and the shape of the first input."""
    codes = [operator["code"] for operator in operators["operators"]]
    first = operators["tensors"][operators["inputs"][0]] if operators["inputs"] else {"shape": []}
    shape = "x".join(map(str, first["shape"]))
    return f"{'+'.join(codes[:3])}{'+...' * (len(codes) > 3)} of {shape}"


def weight_bytes(operators: Mapping[str, Any]) -> int:
    """Returns the size of all constants that are weights, in bytes."""
    return sum(4 * _size(t) for t in operators["tensors"] if "constant" in t)


def _size(tensor: Mapping[str, Any]) -> int:
    return int(np.prod(tensor["shape"], dtype=np.int64))


def build(text: str) -> bytes:
    """Makes a file that runs the operators of a text, with random weights.

    Args:
        text: text of one operator, several, or a whole network.

    Returns:
        Contents of a .tflite file, the same for the same text.
    """
    operators = json.loads(text)
    rng = np.random.default_rng(0)
    buffers = [schema.BufferT()]  # the first one is empty by convention
    tensors = []
    for number, tensor in enumerate(operators["tensors"]):
        buffer = 0
        if _is_constant(tensor):
            buffer = len(buffers)
            data = np.frombuffer(_values(tensor, rng).tobytes(), np.uint8)
            buffers.append(schema.BufferT(data=data))
        tensors.append(
            schema.TensorT(
                name=f"{number}",
                shape=tensor["shape"],
                type=getattr(schema.TensorType, tensor["type"]),
                buffer=buffer,
                hasRank=True,
            )
        )
    codes = list(dict.fromkeys((o["code"], o["version"]) for o in operators["operators"]))
    graph = schema.SubGraphT(
        name="main",
        tensors=tensors,
        inputs=operators["inputs"],
        outputs=operators["outputs"],
        operators=[
            schema.OperatorT(
                opcodeIndex=codes.index((o["code"], o["version"])),
                inputs=o["inputs"],
                outputs=o["outputs"],
                **_options(o),
            )
            for o in operators["operators"]
        ],
    )
    model = schema.ModelT(
        version=3,
        description="operators",
        operatorCodes=[_code(name, version) for name, version in codes],
        subgraphs=[graph],
        buffers=buffers,
    )
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _code(name: str, version: int) -> Any:
    code = getattr(schema.BuiltinOperator, name)
    # The old field is one byte, in which 127 stands for all larger codes.
    return schema.OperatorCodeT(
        builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version
    )


def _options(operator: Mapping[str, Any]) -> dict[str, Any]:
    if "options" not in operator:
        return {}
    name, fields = operator["options"]
    return {
        "builtinOptionsType": getattr(schema.BuiltinOptions, name),
        "builtinOptions": getattr(schema, f"{name}T")(**fields),
    }


def _values(tensor: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Makes a constant. Random weights keep the scale of their inputs, so none overflows."""
    if "values" in tensor:
        return np.array(tensor["values"], _TYPES[tensor["type"]])
    shape = tensor["shape"]
    outputs = shape[0] if shape[0] > 1 else shape[-1]
    fan_in = max(_size(tensor) // max(outputs, 1), 1)
    return rng.standard_normal(_size(tensor), np.float32) * np.float32((2 / fan_in) ** 0.5)
