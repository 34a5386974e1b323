"""A refit's runs by LiteRT: the pruned network in pieces, each a TFLite file.

Between two places at which a refit reads the network, a segment of it is run, with the weights
that have been refitted so far. Its file holds the operators on the way to what is read next, and is
cut out of the same conversions as the file of the whole network. Only what a later segment or the
refit reads is kept, for all images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.widths import random_plan
from amc_tf.pruning.refit.runner import Images, Read, Stop, in_parts
from amc_tf.pruning.weights import Weights, named_weight, numpy_of
from amc_tf.scoring.batch_norm_folding import Folding, NotCarriedError
from amc_tf.scoring.tflite_engine import LiteEngine, LiteNetwork
from amc_tf.scoring.tflite_template import Specimens, Template
from amc_tf.scoring.tflite_values import TOLERANCE, difference, matched, recorded, tensors

_PARTS = 16  # in which rows are read
# Factor of images that reach what a rectifier clips above.
_BRIGHT = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """The operators between two stops.

    Attributes:
        template: template of its files; None if it has no operators.
        inputs: tensors that it reads.
        outputs: tensors of it that are read behind it, by other segments or by the refit.
        before: tensors that nothing reads from here on.
        after: tensors that nothing reads once it has run.
    """

    template: Template | None
    inputs: Sequence[int]
    outputs: Sequence[int]
    before: frozenset[int]
    after: frozenset[int]


def segments(specimens: Specimens, wanted: Sequence[Iterable[int]]) -> list[Segment]:
    """Cuts a network at stops.

    Args:
        specimens: the conversions of the network.
        wanted: for each stop, the tensors that are read there.

    Returns:
        For each stop, the segment that leads to it.
    """
    operators, inputs = specimens.operators, set(specimens.inputs)
    maker = {int(t): i for i, operator in enumerate(operators) for t in operator.outputs}
    parts: list[list[int]] = []
    reads: list[set[int]] = []
    done: set[int] = set()
    for tensors_ in wanted:
        chosen: set[int] = set()
        waiting = [maker[t] for t in tensors_ if t in maker]
        while waiting:
            operator = waiting.pop()
            if operator not in done and operator not in chosen:
                chosen.add(operator)
                waiting += [maker[int(t)] for t in operators[operator].inputs if int(t) in maker]
        parts.append(sorted(chosen))
        read_here = {int(t) for i in chosen for t in operators[i].inputs}
        reads.append({t for t in read_here if t in inputs or maker.get(t, -1) in done})
        done |= chosen
    last_run = {t: k for k, read in enumerate(reads) for t in read}
    last_read = {t: k for k, read in enumerate(wanted) for t in read}
    result = []
    for k, (run, read) in enumerate(zip(parts, reads, strict=True)):
        made = {int(t) for i in run for t in operators[i].outputs}
        outputs = [t for t in sorted(made) if last_run.get(t, -1) > k or t in last_read]
        every = set(last_run) | set(last_read)
        result.append(
            Segment(
                specimens.part(run, sorted(read), outputs) if run else None,
                sorted(read),
                outputs,
                frozenset(t for t in every if max(last_run.get(t, -1), last_read.get(t, -1)) < k),
                frozenset(
                    t for t in every if last_run.get(t, -1) <= k and last_read.get(t, -1) < k
                ),
            )
        )
    return result


class LiteRunner:
    """A `Runner` that cuts the files of segments out of an engine's conversions."""

    def __init__(
        self,
        graph: ChannelGraph,
        folding: Folding,
        engine: LiteEngine,
        stops: Sequence[Stop],
        images: Images,
    ):
        """Finds the values that a refit reads in the file, and checks a run against Keras.

        Args:
            graph: the analysed model.
            folding: `fold(graph)`.
            engine: the engine of `folding.graph`.
            stops: where the refit reads the network, in order.
            images: its images.

        Raises:
            NotCarriedError: the refit cannot be run in this way.
        """
        self.graph, self.folding, self.engine = graph, folding, engine
        self.stops = {id(stop.call): number for number, stop in enumerate(stops)}
        operations = [call.operation for call in graph.network.calls]
        for stop in stops:
            layer = stop.call.operation
            if sum(operation is layer for operation in operations) > 1:
                raise NotCarriedError(f"{graph.network.told(layer)} is called several times")
        original = {name: _original(graph, name) for stop in stops for name in stop.weights}
        if not engine.carries(folding.weights(original)):
            raise NotCarriedError("a weight that the refit changes is not in the converted file")
        file = engine.specimens.each[0].file.subgraphs[0]
        made = [int(t) for operator in engine.specimens.operators for t in operator.outputs]
        held = [
            t
            for t in (*engine.specimens.inputs, *made)
            if file.tensors[t].type == schema.TensorType.FLOAT32
            and file.tensors[t].shape is not None
            and len(file.tensors[t].shape)
            and file.tensors[t].shape[0] == engine.batch_size
        ]
        plan = random_plan(graph, np.random.default_rng(0))
        size = engine.batch_size
        few = [np.resize(a, (size, *a.shape[1:])) for a in images.part(slice(size))]
        bright = [_BRIGHT * a if a.dtype.kind == "f" else a for a in few]
        values, found = [], []
        for arrays, of in ((few, PruningPlan({})), (few, plan), (bright, plan)):
            batch = Images(arrays, images.dtypes)
            values.append(recorded(graph, of, stops, batch))
            found.append(tensors(engine.file(of), held, batch))
        self.tensor_of = matched(values, found)
        self.segments = segments(
            engine.specimens, [[self.tensor_of[n] for n in stop.values] for stop in stops]
        )
        sizes = {t: 4 * math.prod(file.tensors[t].shape[1:]) for t in held}
        of_segment = [
            max((sizes.get(t, 0) for t in segment.outputs), default=0) for segment in self.segments
        ]
        # Of each segment: bytes an image, of the largest output of it and of those behind it.
        self.largest = np.maximum.accumulate(of_segment[::-1])[::-1].tolist()
        self._verify(plan, stops, Images(few, images.dtypes), values[1])

    def start(self, plan: PruningPlan, images: Images, pool: Executor) -> LiteRun:
        """See `Runner.start`."""
        return LiteRun(self, plan, images, pool)

    def _verify(self, plan: PruningPlan, stops, images: Images, expected) -> None:
        with ThreadPoolExecutor(self.engine.num_threads) as pool:
            run = self.start(plan, images, pool)
            for stop in stops:
                run.advance(stop, {})
                for number in stop.values:
                    received = run.rows(number, lambda x, _: np.array(x))
                    if not difference(received, expected[number]) <= TOLERANCE:
                        raise NotCarriedError(
                            f"value {number} of the network, run in segments, differs from Keras'"
                        )


class LiteRun:
    """A `Run` of a `LiteRunner`'s segments."""

    def __init__(self, runner: LiteRunner, plan: PruningPlan, images: Images, pool: Executor):
        self._runner = runner
        self._keep = runner.engine.graph.keep_mask(plan)
        self._images = images
        self._pool = pool
        self._weights: dict[str, np.ndarray] = {}
        # The network's inputs stay as they are given: the batches are converted.
        self._live = dict(zip(runner.engine.specimens.inputs, images.arrays, strict=True))
        self._memory = _Memory()
        self._next = 0

    def advance(self, stop: Stop, changed: Weights) -> None:
        """See `Run.advance`."""
        self._weights |= self._runner.folding.weights(changed)
        end = self._runner.stops[id(stop.call)] + 1
        ahead = slice(self._next, end)
        segments = zip(self._runner.segments[ahead], self._runner.largest[ahead], strict=True)
        for segment, largest in segments:
            self._drop(segment.before)
            self._memory.shed(largest * len(self._images))
            if segment.template is not None:
                file = segment.template.file(self._keep, self._weights)
                network = LiteNetwork(file, self._runner.engine.num_threads, self._pool)
                outputs = network([self._live[t] for t in segment.inputs], self._memory.empty)
                self._live.update(zip(segment.outputs, outputs, strict=True))
            self._drop(segment.after)
        self._next = max(self._next, end)

    def _drop(self, gone: Iterable[int]) -> None:
        for tensor in gone:
            if tensor in self._live:
                self._memory.give_back(self._live.pop(tensor))

    def rows(self, number: int, read: Read) -> np.ndarray:
        """See `Run.rows`."""
        values = self._live[self._runner.tensor_of[number]]
        spatial = self._runner.graph.network.tensors[number].shape[1:-1]

        def part(images: slice) -> np.ndarray:
            value = np.asarray(values[images], np.float32)
            return read(value.reshape(len(value), *spatial, -1), images)

        total = len(self._images)
        return in_parts(total, math.ceil(total / _PARTS), self._pool, part)


class _Memory:
    """Memory of arrays that is used again: new memory costs as much time as filling it."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []  # bytes
        self._given: dict[int, np.ndarray] = {}  # by the address of the array

    def empty(self, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """Makes an array in the smallest piece of memory that is free and holds it."""
        needed = math.prod(shape) * np.dtype(dtype).itemsize
        fitting = [i for i, piece in enumerate(self._free) if piece.nbytes >= needed]
        if fitting:
            piece = self._free.pop(min(fitting, key=lambda i: self._free[i].nbytes))
        else:
            self._free.clear()  # all of it is too small, and later arrays are seldom larger
            piece = np.empty(needed, np.uint8)
        array = piece[:needed].view(dtype).reshape(shape)
        self._given[array.ctypes.data] = piece
        return array

    def shed(self, largest: int) -> None:
        """Gives up what is larger than any array to come, of so many bytes at most."""
        self._free = [piece for piece in self._free if piece.nbytes <= largest]

    def give_back(self, array: np.ndarray) -> None:
        """Takes back the memory of an array made here; of others, does nothing."""
        piece = self._given.pop(array.ctypes.data, None)
        if piece is not None:
            self._free.append(piece)


def _original(graph: ChannelGraph, name: str) -> np.ndarray:
    layer, _, weight = name.rpartition("/")
    return numpy_of(named_weight(graph.site(layer).call.operation, weight))
