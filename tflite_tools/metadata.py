"""Metadata inside a TFLite file, so that an app needs no other file.

The format is the TFLite metadata schema 1.0 (`metadata_schema.fbs` of the project TFLite Support):
a flatbuffer in a buffer of the model named TFLITE_METADATA, and the files that it names, labels for
instance, in a zip archive appended to the model. The package that writes it, tflite-support, needs
a protobuf older than TensorFlow's, hence this module.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

from tflite_tools import flatbuffer

_BUFFER_NAME = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
# Values of enums and unions of the schema.
_AXIS_LABELS = 2
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_RGB, _GRAYSCALE = 1, 2
_NORMALIZATION = 1


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What an app does to raw input values x: (x - mean) / std.

    Attributes:
        mean: one value for all channels, or one for each.
        std: one positive value for all channels, or one for each.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = np.atleast_1d(np.asarray(getattr(self, name), np.float64))
            if values.ndim != 1 or not np.isfinite(values).all():
                raise ValueError(f"{name} must be one finite number or one a channel: {values!r}.")
            object.__setattr__(self, name, tuple(values.tolist()))
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive; received {self.std}.")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a file says about itself.

    Attributes:
        name: name of the model.
        description: description of the model, in words.
        labels: a label for each position of the last axis of an output, by output name.
        normalization: what is done to raw values before they go in, by input name. An input that
            is not named here takes raw values.
        stats: the least and the greatest value that an input takes, by input name.
    """

    name: str = ""
    description: str = ""
    labels: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    normalization: Mapping[str, Normalization] = dataclasses.field(default_factory=dict)
    stats: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)


def attach(content: bytes, metadata: Metadata) -> bytes:
    """Adds metadata to a file made by `tflite_tools.convert`.

    Args:
        content: the file, whose signature names inputs and outputs.
        metadata: what to add; it replaces metadata that the file has.

    Returns:
        The contents of the file with metadata.

    Raises:
        ValueError: a name, or the number of labels or channels, does not fit the file.
    """
    model = flatbuffer.read(content)
    ends = _ends(model)
    inputs, outputs = ends
    _check(metadata, inputs, outputs)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_flatbuffer(metadata, inputs, outputs), np.uint8)
    entry = next((m for m in model.metadata or () if flatbuffer.text(m.name) == _BUFFER_NAME), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = _BUFFER_NAME, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or ()), entry]
    else:
        model.buffers[entry.buffer] = buffer
    file = io.BytesIO(flatbuffer.write(model))
    if metadata.labels:
        with zipfile.ZipFile(file, "a") as archive:
            for name, labels in metadata.labels.items():
                # ZipInfo has a fixed date: the same model gives the same bytes.
                info = zipfile.ZipInfo(_label_file(name))
                archive.writestr(info, "\n".join(labels).encode())
    return file.getvalue()


def read_metadata(content: bytes) -> Metadata | None:
    """Reads the metadata of a file, None if it has none: the inverse of `attach`.

    Raises:
        ValueError: the bytes are not a TFLite file.
    """
    model = flatbuffer.read(content)
    entry = next((m for m in model.metadata or () if flatbuffer.text(m.name) == _BUFFER_NAME), None)
    if entry is None:
        return None
    root = _Reader.root(bytes(model.buffers[entry.buffer].data))
    graph = root.tables(3)[0]
    labels: dict[str, list[str]] = {}
    files = {}
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name).decode() for name in archive.namelist()}
    for tensor in graph.tables(3):
        for file in tensor.tables(6):
            labels[tensor.string(0)] = files[file.string(0)].split("\n")
    normalization, stats = {}, {}
    for tensor in graph.tables(2):
        for unit in tensor.tables(4):
            options = unit.table(1)
            normalization[tensor.string(0)] = Normalization(options.floats(0), options.floats(1))
        if (limits := tensor.table(5)) is not None:
            stats[tensor.string(0)] = (limits.floats(1)[0], limits.floats(0)[0])
    return Metadata(root.string(0), root.string(1), labels, normalization, stats)


def _ends(model: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Returns the shapes of inputs and of outputs by name, in the order of the subgraph."""
    if not model.signatureDefs:
        raise ValueError(
            "the file has no signature, which would name its inputs and outputs; make it with "
            "tflite_tools.convert."
        )
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    found = []
    for entries, indices in (
        (signature.inputs, graph.inputs),
        (signature.outputs, graph.outputs),
    ):
        names = {entry.tensorIndex: flatbuffer.text(entry.name) for entry in entries}
        found.append({names[i]: tuple(graph.tensors[i].shape) for i in indices})
    return found[0], found[1]


def _check(metadata: Metadata, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    for what, given, there in (
        ("labels", metadata.labels, outputs),
        ("normalization", metadata.normalization, inputs),
        ("stats", metadata.stats, inputs),
    ):
        for name in given:
            if name not in there:
                raise ValueError(
                    f"metadata gives {what} for {name!r}, but the file has {', '.join(there)}."
                )
    for name, labels in metadata.labels.items():
        size = outputs[name][-1]
        if len(labels) != size or any("\n" in label for label in labels):
            raise ValueError(
                f"output {name!r} has {size} classes, so it needs {size} labels of one line each; "
                f"received {len(labels)}."
            )
    for name, values in metadata.normalization.items():
        channels = inputs[name][-1]
        for field in (values.mean, values.std):
            if len(field) not in (1, channels):
                raise ValueError(
                    f"input {name!r} has {channels} channels, so mean and std need 1 or {channels} "
                    f"values; received {len(field)}."
                )


def _label_file(output: str) -> str:
    return f"{output.replace('/', '_')}_labels.txt"


# --- the flatbuffer --------------------------------------------------------------------------

_Put = Callable[[flatbuffers.Builder, int], None]


def _flatbuffer(
    metadata: Metadata,
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Mapping[str, tuple[int, ...]],
) -> bytes:
    builder = flatbuffers.Builder(1024)
    graph = _table(
        builder,
        {
            2: _vector(builder, [_input(builder, n, s, metadata) for n, s in inputs.items()]),
            3: _vector(builder, [_output(builder, n, metadata) for n in outputs]),
        },
    )
    root = _table(
        builder,
        {
            0: builder.CreateString(metadata.name),
            1: builder.CreateString(metadata.description),
            3: _vector(builder, [graph]),
            7: builder.CreateString(_PARSER_VERSION),
        },
    )
    builder.Finish(root, _IDENTIFIER)
    return bytes(builder.Output())


def _input(
    builder: flatbuffers.Builder, name: str, shape: tuple[int, ...], metadata: Metadata
) -> int:
    fields = {0: builder.CreateString(name), 3: _content(builder, shape)}
    normalization = metadata.normalization.get(name, Normalization())
    mean, std = (
        builder.CreateNumpyVector(np.array(v, np.float32))
        for v in (normalization.mean, normalization.std)
    )
    options = _table(builder, {0: mean, 1: std})
    fields[4] = _vector(builder, [_table(builder, {1: options}, {0: _NORMALIZATION})])
    if name in metadata.stats:
        low, high = (
            builder.CreateNumpyVector(np.array([v], np.float32)) for v in metadata.stats[name]
        )
        fields[5] = _table(builder, {0: high, 1: low})
    return _table(builder, fields)


def _content(builder: flatbuffers.Builder, shape: tuple[int, ...]) -> int:
    """Writes the kind of content: an image if the shape is that of one, else plain features."""
    colors = {1: _GRAYSCALE, 3: _RGB}
    if len(shape) != 4 or shape[-1] not in colors:
        return _table(builder, {1: _table(builder, {})}, {0: _FEATURE_PROPERTIES})
    builder.StartObject(2)
    builder.PrependUint32Slot(0, shape[2], 0)
    builder.PrependUint32Slot(1, shape[1], 0)
    size = builder.EndObject()
    image = _table(builder, {1: size}, {0: colors[shape[-1]]})
    return _table(builder, {1: image}, {0: _IMAGE_PROPERTIES})


def _output(builder: flatbuffers.Builder, name: str, metadata: Metadata) -> int:
    content = _table(builder, {1: _table(builder, {})}, {0: _FEATURE_PROPERTIES})
    fields = {0: builder.CreateString(name), 3: content}
    if name in metadata.labels:
        file = {
            0: builder.CreateString(_label_file(name)),
            1: builder.CreateString("a label for each position of the last axis"),
        }
        fields[6] = _vector(builder, [_table(builder, file, {2: _AXIS_LABELS})])
    return _table(builder, fields)


def _table(
    builder: flatbuffers.Builder, offsets: Mapping[int, int], small: Mapping[int, int] | None = None
) -> int:
    """Writes a table of references (field number to offset) and of one-byte values."""
    small = small or {}
    builder.StartObject(max([*offsets, *small], default=-1) + 1)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, value in small.items():
        builder.PrependUint8Slot(field, value, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


class _Reader:
    """A flatbuffer table that is read by field numbers."""

    def __init__(self, data: bytes, position: int):
        self._table = flatbuffers.table.Table(data, position)

    @classmethod
    def root(cls, data: bytes) -> _Reader:
        return cls(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))

    def _offset(self, field: int) -> int:
        return self._table.Offset(4 + 2 * field)

    def string(self, field: int) -> str:
        offset = self._offset(field)
        return self._table.String(offset + self._table.Pos).decode() if offset else ""

    def table(self, field: int) -> Any:
        offset = self._offset(field)
        if not offset:
            return None
        return _Reader(self._table.Bytes, self._table.Indirect(offset + self._table.Pos))

    def tables(self, field: int) -> list[Any]:
        offset = self._offset(field)
        if not offset:
            return []
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        positions = (self._table.Indirect(start + 4 * i) for i in range(count))
        return [_Reader(self._table.Bytes, position) for position in positions]

    def floats(self, field: int) -> tuple[float, ...]:
        offset = self._offset(field)
        if not offset:
            return ()
        array = self._table.GetVectorAsNumpy(number_types.Float32Flags, offset)
        return tuple(float(v) for v in array)
