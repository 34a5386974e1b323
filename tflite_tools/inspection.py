"""The operators of a TFLite file, and which of them are not integer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_tools import flatbuffer

_NAMES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
_FLOATS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)
# They only convert between float and integer.
_BORDERS = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class Operator:
    """One operator of a file.

    Attributes:
        kind: name in the TFLite schema (CONV_2D), or name of a custom operator (FlexCumprod).
        output: name of its first output tensor, which shows the layer it comes from.
        is_float: whether it reads or writes float activations.
    """

    kind: str
    output: str
    is_float: bool

    def __str__(self) -> str:
        return f"{self.kind} ({self.output.split(';')[0]})"


@dataclass(frozen=True)
class Inspection:
    """The findings of `inspect_file`.

    Attributes:
        operators: operators of all subgraphs, in the order in which they run.
    """

    operators: tuple[Operator, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of operators of each kind."""
        return dict(Counter(operator.kind for operator in self.operators))

    @property
    def float_operators(self) -> tuple[Operator, ...]:
        """Operators that compute in float: in a file of an integer format, the fallbacks."""
        return tuple(o for o in self.operators if o.is_float and o.kind not in _BORDERS)

    @property
    def flex_operators(self) -> tuple[Operator, ...]:
        """TensorFlow's own operators, which need the Flex delegate."""
        return tuple(o for o in self.operators if o.kind.startswith("Flex"))


def inspect_file(content: bytes) -> Inspection:
    """Lists the operators of a TFLite file.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: the bytes are not a TFLite file.
    """
    model = flatbuffer.read(content)
    return Inspection(
        tuple(
            _operator(model, graph, operator)
            for graph in model.subgraphs
            for operator in graph.operators or ()
        )
    )


def _operator(model: Any, graph: Any, operator: Any) -> Operator:
    code = model.operatorCodes[operator.opcodeIndex]
    builtin = flatbuffer.kind(code)
    custom = flatbuffer.text(code.customCode)
    outputs = [graph.tensors[i] for i in operator.outputs if i >= 0]
    inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
    activations = outputs + [t for t in inputs if not _is_constant(model, t)]
    return Operator(
        kind=custom if builtin == schema.BuiltinOperator.CUSTOM else _NAMES[builtin],
        output=flatbuffer.text(outputs[0].name) if outputs else "",
        is_float=any(tensor.type in _FLOATS for tensor in activations),
    )


def _is_constant(model: Any, tensor: Any) -> bool:
    buffer = model.buffers[tensor.buffer]
    return buffer.data is not None or buffer.offset > 1
