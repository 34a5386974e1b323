"""TFLite files of pruned networks, cut out of one template in milliseconds.

A plan changes two things in a converted file: numbers that are widths, and the
contents of weights. Where they are is found out by converting the model twice,
each time pruned by another random plan, with weights that hold their own
number instead of their value:

*   A constant whose contents are such numbers is a weight, transposed in the way
    that the numbers tell. It moves out of the flatbuffer, behind it.
*   What is left of the two files differs in 32-bit words alone. Each is a width,
    and the channels it counts are those of which the first plan keeps as many as
    the first file says, and the second as the second.

So nothing is assumed about the converter: what it does not simply copy or count
is found, and refused. A file is then the template with other words, and sliced
weights after it.
"""

from __future__ import annotations

import dataclasses
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
from scipy.sparse import csr_array
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.widths import (
    channel_vectors,
    counts,
    positions,
    prunable,
    random_plan,
    telling_plans,
)
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import Weights, numpy_of
from amc_tf.scoring.batch_norm_folding import NotCarriedError

# Weight number i is the float32 i steps above 2**40: exact, and far from what models hold.
_FIRST_CODE = int(np.float32(2.0**40).view(np.int32))
_MAX_CODES = 2**28
_MAX_CONVERSIONS = 6
_ALIGNMENT = 64  # of a weight in the file, bytes
# Fields of the table `Buffer` in the TFLite schema, as byte offsets into its vtable.
_OFFSET, _SIZE = 6, 8


@dataclasses.dataclass(frozen=True, eq=False)
class _Weight:
    """A weight whose elements are numbered.

    Attributes:
        name: `layer/weight`.
        value: of the dense network.
        classes: for each axis the channel class of each position, None where nothing is cut.
        start: number of its first element.
    """

    name: str
    value: np.ndarray
    classes: tuple[np.ndarray | None, ...]
    start: int

    def cut(self, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """`value` without the positions of channels that are not kept."""
        for axis, classes in enumerate(self.classes):
            if classes is not None:
                rows = keep[classes]
                if not rows.all():
                    value = np.compress(rows, value, axis)
        return value

    def codes(self) -> np.ndarray:
        """The numbers of its elements, as floats."""
        numbers = np.arange(self.start, self.start + self.value.size, dtype=np.int32)
        return (numbers + np.int32(_FIRST_CODE)).view(np.float32).reshape(self.value.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class _Slot:
    """A constant of the file that is a weight.

    Attributes:
        buffer: its number in the file.
        weight: the weight.
        sign: 1, or -1 where the constant is the negated weight.
        orders: the orders of the weight's axes that give the constant.
    """

    buffer: int
    weight: _Weight
    sign: int
    orders: frozenset[tuple[int, ...]]

    def settled(self) -> bool:
        """Whether all orders are the same but for axes of size one."""
        shape = self.weight.value.shape
        return len({tuple(a for a in order if shape[a] > 1) for order in self.orders}) == 1

    def contents(self, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Its bytes, where `value` is the weight's in the dense shape."""
        value = self.weight.cut(np.asarray(value, np.float32), keep).transpose(min(self.orders))
        value = np.ascontiguousarray(value if self.sign > 0 else -value)
        return value.reshape(-1).view(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class _Specimen:
    """A converted pruned network.

    Attributes:
        keep: the plan, a boolean for each channel class.
        header: its file without weights, bytes.
        slots: which weights these were.
        fills: number of a buffer to its contents, for constants of one repeated value.
    """

    keep: np.ndarray
    header: np.ndarray
    slots: tuple[_Slot, ...]
    fills: Mapping[int, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """What the files of all plans have in common. Made by `learn`.

    Attributes:
        header: a flatbuffer without weights, bytes.
        words: which 32-bit words of it are widths.
        vectors: for each word, how often it counts each channel class.
        slots: the constants behind the flatbuffer.
        fields: for each slot, where the flatbuffer gives its offset and its size.
    """

    header: np.ndarray
    words: np.ndarray
    vectors: csr_array
    slots: Sequence[_Slot]
    fields: Sequence[tuple[int, int]]

    def weights(self) -> set[str]:
        """Names of the weights that can be replaced."""
        return {slot.weight.name for slot in self.slots}

    def file(self, keep: np.ndarray, weights: Weights) -> bytes:
        """The file of a plan.

        Args:
            keep: one boolean for each channel class.
            weights: values in place of the dense ones, by `layer/weight`, in the dense shape.
        """
        header = self.header.copy()
        header.view(np.int32)[self.words] = counts(self.vectors, keep)
        parts, end = [header], len(header)
        for slot, (offset_at, size_at) in zip(self.slots, self.fields, strict=True):
            data = slot.contents(weights.get(slot.weight.name, slot.weight.value), keep)
            header[offset_at : offset_at + 8] = _uint64(end)
            header[size_at : size_at + 8] = _uint64(len(data))
            parts.append(_padded(data))
            end += len(parts[-1])
        return np.concatenate(parts).tobytes()


def learn(
    graph: ChannelGraph, batch_size: int, fixed: Collection[str], rng: np.random.Generator
) -> Template:
    """Finds the words and constants of a file that depend on a plan.

    Args:
        graph: the analysed network.
        batch_size: of the file.
        fixed: weights that never change, by `layer/weight`.
        rng: draws the plans.

    Raises:
        NotCarriedError: something in the file is neither copied nor counted.
    """
    vectors = channel_vectors(graph)
    weights = _numbered(graph, fixed)

    def specimen(plan: PruningPlan) -> _Specimen:
        return _specimen(graph, plan, weights, batch_size)

    specimens = [specimen(plan) for plan in telling_plans(graph, vectors, rng)]
    while True:
        words, fills = _differing_words(specimens), _differing_fills(specimens)
        slots = _common_slots(specimens)
        seen = np.array(
            [
                [*s.header.view(np.int32)[words], *(len(s.fills[number]) for number in fills)]
                for s in specimens
            ]
        )
        counted = np.stack([counts(vectors, s.keep) for s in specimens])
        explained = (seen[:, :, None] == counted[:, None, :]).all(axis=0)  # (places, vectors)
        found = explained.sum(axis=1)
        if (found == 0).any():
            numbers = seen[:, np.argmin(found)].tolist()
            raise NotCarriedError(
                f"the converted files of {len(numbers)} plans hold {numbers} in one place, which "
                "is no width of theirs"
            )
        constant = (counted == counted[0]).all(axis=0).sum()
        if (found == 1).all() and not constant and all(slot.settled() for slot in slots):
            break
        if len(specimens) == _MAX_CONVERSIONS:
            raise NotCarriedError(
                f"{(found > 1).sum()} widths in the file cannot be told apart, {constant} came out "
                "the same for every plan tried, and the axes of "
                f"{sum(not slot.settled() for slot in slots)} weights might be swapped"
            )
        specimens.append(specimen(random_plan(graph, rng)))
    chosen = explained.argmax(axis=1)
    vector_of = dict(zip(fills, chosen[len(words) :], strict=True))
    for number, values in specimens[0].fills.items():
        ids = positions(vectors, vector_of[number]) if number in vector_of else None
        value = np.full(len(values) if ids is None else len(ids), values[0])
        slots.append(_Slot(number, _Weight("", value, (ids,), -1), 1, frozenset([(0,)])))
    header = specimens[0].header
    fields = _buffer_fields(header, [slot.buffer for slot in slots])
    return Template(header, words, vectors[chosen[: len(words)]], slots, fields)


def _numbered(graph: ChannelGraph, fixed: Collection[str]) -> tuple[_Weight, ...]:
    """Every weight that a plan may cut, or a refit change."""
    may_drop = prunable(graph)
    result: list[_Weight] = []
    start = 0
    for site in {site.name: site for site in graph.sites}.values():
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
            result.append(_Weight(name, numpy_of(weight), axes, start))
            start += result[-1].value.size
    if start > _MAX_CODES:
        raise NotCarriedError(f"{start} weights are more than can be numbered")
    return tuple(result)


def _specimen(
    graph: ChannelGraph, plan: PruningPlan, weights: Sequence[_Weight], batch_size: int
) -> _Specimen:
    small = rebuild(graph.network.model, graph, plan, {w.name: w.codes() for w in weights})
    keep = graph.keep_mask(plan)
    file = schema.ModelT.InitFromPackedBuf(_convert(small, batch_size), 0)
    if len(file.subgraphs) != 1:
        raise NotCarriedError("the converted file has control flow")
    slots: dict[int, _Slot] = {}
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
            fills[tensor.buffer] = values  # the zero bias of a layer without, for one
    missing = {w.name for w in weights} - {slot.weight.name for slot in slots.values()}
    if missing:
        raise NotCarriedError(
            f"weight {sorted(missing)[0]!r} is not copied into the converted file: something else "
            "is computed from it"
        )
    for number, tensor in enumerate(file.subgraphs[0].tensors):
        tensor.name = f"{number}"  # Keras counts its nameless operations on and on
    for entry in file.metadata or ():  # the converter's notes on itself, a hash among them
        file.buffers[entry.buffer].data = None
    file.metadata = None
    for number in (*slots, *fills):
        buffer = file.buffers[number]
        # Placeholders: anything but their defaults, which are not written.
        buffer.data, buffer.offset, buffer.size = None, 2, 2
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(file.Pack(builder), b"TFL3")
    header = _padded(np.frombuffer(bytes(builder.Output()), np.uint8))
    return _Specimen(keep, header, tuple(slots.values()), fills)


def _slot(
    buffer: int, values: np.ndarray, weights: Sequence[_Weight], keep: np.ndarray
) -> _Slot | None:
    """The weight that a constant is a copy of, if it is one."""
    if not values.size:
        return None
    sign = -1 if values[0] < 0 else 1  # a PReLU's slopes, for one, are negated
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
    return _Slot(buffer, weight, sign, orders) if orders else None


def _differing_words(specimens: Sequence[_Specimen]) -> np.ndarray:
    """Where the files differ, in words of 32 bits."""
    headers = [s.header for s in specimens]
    if len({len(h) for h in headers}) > 1:
        raise NotCarriedError("the converter makes other operators for other widths")
    words = np.stack([h.view(np.int32) for h in headers])
    return np.flatnonzero((words != words[0]).any(axis=0))


def _differing_fills(specimens: Sequence[_Specimen]) -> list[int]:
    """Buffers of one repeated value that are of several lengths."""
    first = {number: values[0] for number, values in specimens[0].fills.items()}
    if any({n: v[0] for n, v in s.fills.items()} != first for s in specimens):
        raise NotCarriedError("the converter makes other constants for other widths")
    return [n for n in first if len({len(s.fills[n]) for s in specimens}) > 1]


def _common_slots(specimens: Sequence[_Specimen]) -> list[_Slot]:
    """The weights in the files, each with an order of axes that holds in all of them."""
    result = []
    for slots in zip(*(s.slots for s in specimens), strict=True):
        orders = frozenset.intersection(*(slot.orders for slot in slots))
        if len({(s.buffer, s.weight.name, s.sign) for s in slots}) > 1 or not orders:
            raise NotCarriedError(f"{slots[0].weight.name!r} lies elsewhere in another plan's file")
        result.append(dataclasses.replace(slots[0], orders=orders))
    return result


def _buffer_fields(header: np.ndarray, buffers: Sequence[int]) -> list[tuple[int, int]]:
    """Where the file gives offset and size of some buffers: bytes from its beginning."""
    model = schema.Model.GetRootAs(header.tobytes(), 0)
    fields = []
    for number in buffers:
        table = model.Buffers(number)._tab
        fields.append((table.Pos + table.Offset(_OFFSET), table.Pos + table.Offset(_SIZE)))
    return fields


def _convert(model: keras.Model, batch_size: int) -> bytes:
    """The float32 TFLite file of a Keras model, with a static batch."""
    signature = [
        tf.TensorSpec((batch_size, *t.shape[1:]), t.dtype, name=t.name) for t in model.inputs
    ]

    def call(*tensors):
        return run(model, tensors)

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # advice on how to call the converter otherwise
    try:
        traced = tf.function(call, input_signature=signature, autograph=False)
        frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())
    except Exception as error:  # the converter raises whatever it likes
        reasons = re.findall("error: (.+)", str(error)) or str(error).strip().splitlines()
        raise NotCarriedError(f"the model cannot be converted: {reasons[0]}") from error
    finally:
        logger.setLevel(level)


def run(model: keras.Model, inputs: Sequence[Any]) -> list[Any]:
    """Inference with flat lists of tensors or arrays, however the model nests them."""
    flat = keras.Model(list(model.inputs), list(model.outputs))
    return keras.tree.flatten(flat(list(inputs), training=False))


def _uint64(value: int) -> np.ndarray:
    return np.array([value], "<u8").view(np.uint8)


def _padded(data: np.ndarray) -> np.ndarray:
    """Bytes up to a multiple of the alignment."""
    return np.pad(data, (0, -len(data) % _ALIGNMENT))
