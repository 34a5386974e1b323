"""Reading and writing TFLite files by their schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
# `force_align: 16` of Buffer.data in the schema, which the Python bindings leave out.
_ALIGNMENT = 16
SIGNATURE_KEY = "serving_default"


class _AlignedBuffer(schema.BufferT):
    def Pack(self, builder: flatbuffers.Builder) -> int:
        array = None
        if self.data is not None:
            data = np.asarray(self.data, np.uint8)
            builder.StartVector(1, data.size, _ALIGNMENT)
            builder.head = builder.head - data.size
            builder.Bytes[builder.head : builder.head + data.size] = data.tobytes()
            array = builder.EndVector()
        schema.BufferStart(builder)
        if array is not None:
            schema.BufferAddData(builder, array)
        schema.BufferAddOffset(builder, self.offset)
        schema.BufferAddSize(builder, self.size)
        return schema.BufferEnd(builder)


class _SharingBuilder(flatbuffers.Builder):
    """A builder that writes equal vectors once: most zero points are 0, at 8 bytes a channel."""

    def __init__(self, size: int):
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def read(content: bytes) -> Any:
    """Reads a file as a `ModelT`, the object form of the schema's root table.

    Raises:
        ValueError: the bytes are not a TFLite file.
    """
    if content[4:8] != _IDENTIFIER:
        raise ValueError(
            f"expected the contents of a .tflite file, received {len(content)} bytes that do not "
            f"have its identifier {_IDENTIFIER.decode()!r}; convert the model first."
        )
    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def write(model: Any) -> bytes:
    """Writes a model as a file, the inverse of `read`; weights are aligned as the schema asks."""
    buffers = []
    for buffer in model.buffers:
        aligned = _AlignedBuffer()
        aligned.data, aligned.offset, aligned.size = buffer.data, buffer.offset, buffer.size
        buffers.append(aligned)
    model.buffers = buffers
    size = sum(0 if b.data is None else len(b.data) for b in buffers)
    builder = _SharingBuilder(size + 65536)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def sharing(model: Any) -> Any:
    """Lets constants of the same bytes share a buffer; empties the buffers that are not used."""
    first: dict[bytes, int] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None:
                tensor.buffer = first.setdefault(bytes(data), tensor.buffer)
    return without_unused(model)


def without_unused(model: Any) -> Any:
    """Empties the buffers that nothing refers to any more."""
    used = {int(t.buffer) for graph in model.subgraphs for t in graph.tensors}
    used |= {int(entry.buffer) for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    return model


def sign(
    content: bytes, inputs: Sequence[str], outputs: Sequence[str], paths: Sequence[str]
) -> bytes:
    """Names a file's inputs and outputs in its signature `serving_default`.

    Args:
        content: a file of one subgraph.
        inputs: a name for each input, in their order.
        outputs: a name for each output, in their order.
        paths: for each output, the path of layer names that makes it. The names of other tensors
            hold such a path already; the converter calls outputs "Identity".
    """
    model = read(content)
    graph = model.subgraphs[0]
    for index, path in zip(graph.outputs, paths, strict=True):
        # Joined as the converter joins names: the path alone may be the name of a constant.
        graph.tensors[index].name = f"{path};{text(graph.tensors[index].name)}"
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE_KEY
    signature.subgraphIndex = 0
    signature.inputs = _tensor_map(inputs, graph.inputs)
    signature.outputs = _tensor_map(outputs, graph.outputs)
    model.signatureDefs = [signature]
    return write(model)


def _tensor_map(names: Sequence[str], tensors: Sequence[int]) -> list[Any]:
    entries = []
    for name, tensor in zip(names, tensors, strict=True):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, int(tensor)
        entries.append(entry)
    return entries


def kind(code: Any) -> int:
    """Returns the `BuiltinOperator` of an operator code.

    Codes above 127 are in `builtinCode` alone, smaller codes of old files in the other field alone.
    """
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def text(name: bytes | str | None) -> str:
    """Decodes a string of the schema, which the bindings give as bytes."""
    return name.decode() if isinstance(name, bytes) else name or ""
