"""A converted file whose weights can be recognised by their values."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.widths import prunable
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import numpy_of
from amc_tf.scoring.batch_norm_folding import NotCarriedError

# Weight number i is the float32 i steps above 2**40: exact, and far from what models hold.
_FIRST_CODE = int(np.float32(2.0**40).view(np.int32))

_MAX_CODES = 2**28

_ALIGNMENT = 64  # of each weight in the file, in bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight whose elements are numbered, to be found again in the converted file.

    Attributes:
        name: `layer/weight`.
        value: the weight's value in the dense network.
        classes: for each axis, the channel class of each position; None where nothing is cut.
        start: number of the first element.
    """

    name: str
    value: np.ndarray
    classes: tuple[np.ndarray | None, ...]
    start: int

    def cut(self, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Returns `value` without the positions of channels that are not kept."""
        for axis, classes in enumerate(self.classes):
            if classes is not None:
                rows = keep[classes]
                if not rows.all():
                    value = np.compress(rows, value, axis)
        return value

    def codes(self) -> np.ndarray:
        """Returns the numbers of the elements, as floats."""
        numbers = np.arange(self.start, self.start + self.value.size, dtype=np.int32)
        return (numbers + np.int32(_FIRST_CODE)).view(np.float32).reshape(self.value.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """A constant of the file that is a weight.

    Attributes:
        buffer: number of the constant's buffer in the file.
        weight: the weight.
        sign: 1, or -1 where the constant is the negated weight.
        orders: the orders of the weight's axes that give the constant.
    """

    buffer: int
    weight: Weight
    sign: int
    orders: frozenset[tuple[int, ...]]

    def settled(self) -> bool:
        """Returns whether all orders are the same except for axes of size one."""
        shape = self.weight.value.shape
        return len({tuple(a for a in order if shape[a] > 1) for order in self.orders}) == 1

    def contents(self, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Returns the constant's bytes, given the weight's value in the dense shape."""
        value = self.weight.cut(np.asarray(value, np.float32), keep).transpose(min(self.orders))
        value = np.ascontiguousarray(value if self.sign > 0 else -value)
        return value.reshape(-1).view(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Specimen:
    """A converted pruned network.

    Attributes:
        keep: whether the plan keeps each channel class, boolean.
        file: the file without its weights.
        slots: the places of the weights.
        fills: number of a buffer to its contents, for constants of one repeated value.
    """

    keep: np.ndarray
    file: schema.ModelT
    slots: tuple[Slot, ...]
    fills: Mapping[int, np.ndarray]

    @functools.cached_property
    def header(self) -> np.ndarray:
        """The file without its weights, bytes."""
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.file.Pack(builder), b"TFL3")
        return padded(np.frombuffer(bytes(builder.Output()), np.uint8))

    def part(
        self, operators: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> Specimen:
        """Makes a file of some of the operators, with the constants that they read.

        Args:
            operators: numbers of the operators, ascending.
            inputs: numbers of the tensors that are the part's inputs.
            outputs: numbers of the tensors that are its outputs.
        """
        whole = self.file.subgraphs[0]
        chosen = [copy.copy(whole.operators[i]) for i in operators]
        used = {int(t) for o in chosen for t in (*o.inputs, *o.outputs) if t >= 0}
        tensors = sorted(used.union(inputs, outputs))
        buffers = sorted({0, *(whole.tensors[t].buffer for t in tensors)})
        tensor_at = {-1: -1, **{t: i for i, t in enumerate(tensors)}}  # -1: left out
        buffer_at = {b: i for i, b in enumerate(buffers)}
        for operator in chosen:
            operator.inputs = [tensor_at[int(t)] for t in operator.inputs]
            operator.outputs = [tensor_at[int(t)] for t in operator.outputs]
        graph = schema.SubGraphT()
        graph.operators = chosen
        graph.tensors = [copy.copy(whole.tensors[t]) for t in tensors]
        for number, tensor in enumerate(graph.tensors):
            tensor.buffer, tensor.name = buffer_at[tensor.buffer], f"{number}"
        graph.inputs = [tensor_at[t] for t in inputs]
        graph.outputs = [tensor_at[t] for t in outputs]
        file = copy.copy(self.file)
        file.subgraphs, file.signatureDefs = [graph], None
        file.buffers = [self.file.buffers[b] for b in buffers]
        slots = (s for s in self.slots if s.buffer in buffer_at)
        return Specimen(
            self.keep,
            file,
            tuple(dataclasses.replace(s, buffer=buffer_at[s.buffer]) for s in slots),
            {buffer_at[b]: values for b, values in self.fills.items() if b in buffer_at},
        )


def numbered(graph: ChannelGraph, fixed: Collection[str]) -> tuple[Weight, ...]:
    """Numbers the elements of every weight that a plan may cut or a refit may change."""
    may_drop = prunable(graph)
    result: list[Weight] = []
    start = 0
    for site in graph.first_sites():
        cut = any(may_drop[classes].any() for classes in site.roles.values())
        if not (cut or site.rule.mixes):
            continue
        for weight, roles in site.rule.weight_axes(site.call.operation):
            name = f"{site.name}/{weight.name}"
            if name in fixed:
                continue
            if weight.dtype != "float32":
                raise NotCarriedError(f"weight {name!r} is {weight.dtype}, not float32")
            classes = (site.roles[role] if role is not None else None for role in roles)
            axes = tuple(c if c is not None and may_drop[c].any() else None for c in classes)
            result.append(Weight(name, numpy_of(weight), axes, start))
            start += result[-1].value.size
    if start > _MAX_CODES:
        raise NotCarriedError(f"{start} weights are more than can be numbered")
    return tuple(result)


def make_specimen(
    graph: ChannelGraph, plan: PruningPlan, weights: Sequence[Weight], batch_size: int
) -> Specimen:
    """Converts a plan's network, with the given weights recognisable by their values."""
    small = rebuild(graph.network.model, graph, plan, {w.name: w.codes() for w in weights})
    keep = graph.keep_mask(plan)
    file = schema.ModelT.InitFromPackedBuf(_convert(small, batch_size), 0)
    if len(file.subgraphs) != 1:
        raise NotCarriedError("the converted file has control flow")
    slots: dict[int, Slot] = {}
    fills: dict[int, np.ndarray] = {}
    for tensor in file.subgraphs[0].tensors:
        data = file.buffers[tensor.buffer].data
        if data is None or tensor.type != schema.TensorType.FLOAT32:
            continue
        values = np.frombuffer(bytes(data), np.float32)
        slot = _slot(tensor.buffer, values, weights, keep)
        if slot is not None:
            slots[tensor.buffer] = slot
        elif len(values) > 1 and (values == values[0]).all():
            fills[tensor.buffer] = values  # for example the zero bias of a layer without one
    missing = {w.name for w in weights} - {slot.weight.name for slot in slots.values()}
    if missing:
        raise NotCarriedError(
            f"weight {sorted(missing)[0]!r} is not copied into the converted file: something else "
            "is computed from it"
        )
    for number, tensor in enumerate(file.subgraphs[0].tensors):
        tensor.name = f"{number}"  # Keras numbers unnamed operations across all models
    for entry in file.metadata or ():  # notes of the converter, such as a hash
        file.buffers[entry.buffer].data = None
    file.metadata = None
    for number in (*slots, *fills):
        buffer = file.buffers[number]
        # Placeholders that differ from the defaults, as defaults are not written to the file.
        buffer.data, buffer.offset, buffer.size = None, 2, 2
    return Specimen(keep, file, tuple(slots.values()), fills)


def _slot(
    buffer: int, values: np.ndarray, weights: Sequence[Weight], keep: np.ndarray
) -> Slot | None:
    """Finds the weight of which a constant is a copy; None if it is not a copy of any."""
    if not values.size:
        return None
    sign = -1 if values[0] < 0 else 1  # a PReLU's slopes, for example, are negated
    numbers = (sign * values).view(np.int32) - np.int32(_FIRST_CODE)
    starts = [w.start for w in weights]
    at = int(np.searchsorted(starts, numbers[0], side="right")) - 1
    if at < 0:
        return None
    weight = weights[at]
    whole = np.arange(weight.start, weight.start + weight.value.size, dtype=np.int32)
    kept = weight.cut(whole.reshape(weight.value.shape), keep)
    if kept.size != numbers.size:
        return None
    orders = frozenset(
        order
        for order in itertools.permutations(range(kept.ndim))
        if np.array_equal(kept.transpose(order).ravel(), numbers)
    )
    return Slot(buffer, weight, sign, orders) if orders else None


def _convert(model: keras.Model, batch_size: int) -> bytes:
    """Converts a Keras model to a float32 TFLite file with a static batch."""
    signature = [
        tf.TensorSpec((batch_size, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs
    ]

    def call(*tensors):
        return run(model, tensors)

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # hides advice to call the converter in another way
    try:
        traced = tf.function(call, input_signature=signature, autograph=False)
        frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    except Exception as error:  # the converter raises errors of many kinds
        reasons = re.findall("error: (.+)", str(error)) or str(error).strip().splitlines()
        raise NotCarriedError(f"the model cannot be converted: {reasons[0]}") from error
    finally:
        logger.setLevel(level)


def run(model: keras.Model, inputs: Sequence[Any]) -> list[Any]:
    """Runs a model on a flat list of tensors or arrays, whatever nesting it has; returns one."""
    flat = keras.Model(list(model.inputs), list(model.outputs))
    return keras.tree.flatten(flat(list(inputs), training=False))


def padded(data: np.ndarray) -> np.ndarray:
    """Pads bytes to a multiple of the alignment."""
    return np.pad(data, (0, -len(data) % _ALIGNMENT))
