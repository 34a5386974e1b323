"""TFLite files of pruned networks, cut out of one template in milliseconds.

A plan changes two things in a converted file: numbers that are widths, and the
contents of weights. Two conversions of the model show where these are. Each
conversion prunes the model by another random plan, and its weights hold their
own numbers instead of their values:

*   A constant whose contents are such numbers is a weight, transposed as the
    numbers show. It is moved out of the flatbuffer to a place behind it.
*   What is left of the two files differs only in 32-bit words. Each of these
    is a width. It counts the set of channels of which each plan keeps as many
    as its file says.

So nothing is assumed about the converter: if it does more than copy and count,
that is found, and the network is refused. The file of a plan is the template
with other words, and sliced weights after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from scipy.sparse import csr_array

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.widths import (
    channel_vectors,
    counts,
    positions,
    random_plan,
    telling_plans,
)
from amc_tf.pruning.weights import Weights
from amc_tf.scoring.batch_norm_folding import NotCarriedError
from amc_tf.scoring.tflite_specimen import Slot, Specimen, Weight, make_specimen, numbered, padded

_MAX_CONVERSIONS = 6
# Fields of the table `Buffer` in the TFLite schema, as byte offsets into its vtable.
_OFFSET, _SIZE = 6, 8


@dataclasses.dataclass(frozen=True, eq=False)
class Template:
    """What the files of all plans have in common. Made by `Specimens`.

    Attributes:
        header: a flatbuffer without weights, bytes.
        words: indices of its 32-bit words that are widths.
        vectors: for each word, how often it counts each channel class.
        slots: the constants behind the flatbuffer.
        fields: for each slot, the positions of its offset and its size in the flatbuffer.
    """

    header: np.ndarray
    words: np.ndarray
    vectors: csr_array
    slots: Sequence[Slot]
    fields: Sequence[tuple[int, int]]

    def weights(self) -> set[str]:
        """Returns the names of the weights that can be replaced."""
        return {slot.weight.name for slot in self.slots}

    def file(self, keep: np.ndarray, weights: Weights) -> bytes:
        """Makes the file of a plan.

        Args:
            keep: whether each channel class is kept, boolean.
            weights: values that replace the dense ones, by `layer/weight`, in the dense shape.
        """
        header = self.header.copy()
        header.view(np.int32)[self.words] = counts(self.vectors, keep)
        parts, end = [header], len(header)
        for slot, (offset_at, size_at) in zip(self.slots, self.fields, strict=True):
            data = slot.contents(weights.get(slot.weight.name, slot.weight.value), keep)
            header[offset_at : offset_at + 8] = _uint64(end)
            header[size_at : size_at + 8] = _uint64(len(data))
            parts.append(padded(data))
            end += len(parts[-1])
        return np.concatenate(parts).tobytes()


@dataclasses.dataclass(frozen=True, eq=False)
class Specimens:
    """Conversions under several plans, which tell all widths and weights apart. Made by `learn`.

    Attributes:
        vectors: how often each width counts each channel class, see `channel_vectors`.
        each: the conversions.
    """

    vectors: csr_array
    each: Sequence[Specimen]

    @property
    def operators(self) -> Sequence[schema.OperatorT]:
        """The operators of the file, each after those whose outputs it reads."""
        return self.each[0].file.subgraphs[0].operators

    @property
    def inputs(self) -> Sequence[int]:
        """The tensors that are the network's inputs."""
        return [int(t) for t in self.each[0].file.subgraphs[0].inputs]

    def part(
        self, operators: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]
    ) -> Template:
        """Makes the template of a part of the network (Args: see `Specimen.part`)."""
        parts = [specimen.part(operators, inputs, outputs) for specimen in self.each]
        return Specimens(self.vectors, parts).template()

    def template(self) -> Template:
        """Makes the template of the whole network.

        Raises:
            NotCarriedError: something in the file is neither copied nor counted.
        """
        words, fills = _differing_words(self.each), _differing_fills(self.each)
        slots = _common_slots(self.each)
        chosen = self._explained(words, fills).argmax(axis=1)
        vector_of = dict(zip(fills, chosen[len(words) :], strict=True))
        for number, values in self.each[0].fills.items():
            ids = positions(self.vectors, vector_of[number]) if number in vector_of else None
            value = np.full(len(values) if ids is None else len(ids), values[0])
            slots.append(Slot(number, Weight("", value, (ids,), -1), 1, frozenset([(0,)])))
        header = self.each[0].header
        fields = _buffer_fields(header, [slot.buffer for slot in slots])
        return Template(header, words, self.vectors[chosen[: len(words)]], slots, fields)

    def doubts(self) -> str | None:
        """Returns what these conversions leave open; None if nothing."""
        words, fills = _differing_words(self.each), _differing_fills(self.each)
        explained = self._explained(words, fills).sum(axis=1)
        counted = np.stack([counts(self.vectors, s.keep) for s in self.each])
        constant = int((counted == counted[0]).all(axis=0).sum())
        loose = sum(not slot.settled() for slot in _common_slots(self.each))
        if (explained == 1).all() and not constant and not loose:
            return None
        return (
            f"{(explained > 1).sum()} widths in the file cannot be told apart, {constant} were "
            f"the same for every plan tried, and the axes of {loose} weights might be swapped"
        )

    def _explained(self, words: np.ndarray, fills: Sequence[int]) -> np.ndarray:
        """Returns which vectors each place of the file may count, boolean (places, vectors)."""
        seen = np.array(
            [
                [*s.header.view(np.int32)[words], *(len(s.fills[number]) for number in fills)]
                for s in self.each
            ]
        )
        counted = np.stack([counts(self.vectors, s.keep) for s in self.each])
        explained = (seen[:, :, None] == counted[:, None, :]).all(axis=0)
        nowhere = ~explained.any(axis=1)
        if nowhere.any():
            numbers = seen[:, np.argmax(nowhere)].tolist()
            raise NotCarriedError(
                f"the converted files of {len(numbers)} plans hold {numbers} in one place, which "
                "are not the widths of anything in the network"
            )
        return explained


def learn(
    graph: ChannelGraph, batch_size: int, fixed: Collection[str], rng: np.random.Generator
) -> Specimens:
    """Converts a network often enough to find what in its file depends on a plan.

    Args:
        graph: the analysed network.
        batch_size: batch size of the file.
        fixed: weights that never change, by `layer/weight`.
        rng: random number generator that draws the plans.

    Raises:
        NotCarriedError: something in the file is neither copied nor counted.
    """
    vectors = channel_vectors(graph)
    weights = numbered(graph, fixed)

    def specimen(plan: PruningPlan) -> Specimen:
        return make_specimen(graph, plan, weights, batch_size)

    found = Specimens(vectors, [specimen(plan) for plan in telling_plans(graph, vectors, rng)])
    while (doubts := found.doubts()) is not None:
        if len(found.each) == _MAX_CONVERSIONS:
            raise NotCarriedError(doubts)
        found = Specimens(vectors, [*found.each, specimen(random_plan(graph, rng))])
    return found


def _differing_words(specimens: Sequence[Specimen]) -> np.ndarray:
    """Returns the indices of the 32-bit words in which the files differ."""
    headers = [s.header for s in specimens]
    if len({len(h) for h in headers}) > 1:
        raise NotCarriedError("the converter makes different operators for different widths")
    words = np.stack([h.view(np.int32) for h in headers])
    return np.flatnonzero((words != words[0]).any(axis=0))


def _differing_fills(specimens: Sequence[Specimen]) -> list[int]:
    """Returns the buffers of one repeated value whose lengths differ between the files."""
    first = {number: values[0] for number, values in specimens[0].fills.items()}
    if any({n: v[0] for n, v in s.fills.items()} != first for s in specimens):
        raise NotCarriedError("the converter makes different constants for different widths")
    return [n for n in first if len({len(s.fills[n]) for s in specimens}) > 1]


def _common_slots(specimens: Sequence[Specimen]) -> list[Slot]:
    """Returns the weights in the files, each with the orders of axes that hold in all files."""
    result = []
    for slots in zip(*(s.slots for s in specimens), strict=True):
        orders = frozenset.intersection(*(slot.orders for slot in slots))
        if len({(s.buffer, s.weight.name, s.sign) for s in slots}) > 1 or not orders:
            raise NotCarriedError(
                f"weight {slots[0].weight.name!r} has another place or order of axes in the file "
                "of another plan"
            )
        result.append(dataclasses.replace(slots[0], orders=orders))
    return result


def _buffer_fields(header: np.ndarray, buffers: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the positions of some buffers' offset and size, in bytes from the file's start."""
    model = schema.Model.GetRootAs(header.tobytes(), 0)
    fields = []
    for number in buffers:
        table = model.Buffers(number)._tab
        fields.append((table.Pos + table.Offset(_OFFSET), table.Pos + table.Offset(_SIZE)))
    return fields


def _uint64(value: int) -> np.ndarray:
    return np.array([value], "<u8").view(np.uint8)
