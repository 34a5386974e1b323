"""The operators of a pruned network as functions of its channel counts.

The network is converted three times, each time pruned by a random plan. The
texts of its operators (see `operators`) differ only in numbers. Each number
that differs is a width, and the first two plans show which channels it counts.
The numbers of the third plan must then be as predicted. So nothing is assumed
about the converter, and the operators timed are those that will be exported.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from scipy.sparse import csr_array

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.widths import channel_vectors, counts, random_plan, telling_plans
from amc_tf.latency import operators as ops
from amc_tf.pruning.surgery import rebuild
from tflite_tools import convert

# A whole number in the JSON text, which is neither a digit of a name nor a part of a fraction.
_NUMBER = re.compile(r"(?<![\w.\-])-?\d+(?![\w.])")
_MAX_CONVERSIONS = 5

Point = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Operators that run as one, at any widths.

    Every number of their text is `matrix @ widths + constants`.

    Attributes:
        label: description of the operators in a few words.
        kind: code of the last operator, such as CONV_2D.
        pieces: the text between the numbers.
        matrix: factors of the widths in every number, array (numbers, widths).
        constants: constant term of every number, array (numbers,).
        fixed: part of each width that no group changes, array (widths,).
        shares: number of a group to the part of each width that its channels make
            up, array (counts, widths), a row for each count of channels from none to all.
    """

    label: str
    kind: str
    pieces: tuple[str, ...]
    matrix: np.ndarray
    constants: np.ndarray
    fixed: np.ndarray
    shares: Mapping[int, np.ndarray]

    def point(self, channel_counts: Sequence[int] | np.ndarray) -> Point:
        """Returns the widths if group i keeps `channel_counts[i]` channels."""
        widths = self.fixed.copy()
        for group, rows in self.shares.items():
            widths += rows[channel_counts[group]]
        return tuple(widths.tolist())

    def text(self, point: Sequence[int]) -> str:
        """Returns the text of the operators at these widths: the key of a measurement.

        Raises:
            AmcError: the operators cannot have these widths.
        """
        exact = self.matrix @ np.asarray(point, float) + self.constants
        numbers = np.rint(exact).astype(int)
        if np.abs(exact - numbers).max(initial=0) > 1e-6:
            raise AmcError(f"{self.label} cannot have the widths {tuple(point)}")
        return _joined(self.pieces, numbers)

    def weight_mb(self, point: Sequence[int]) -> float:
        """Returns the megabytes of weights at these widths."""
        return ops.weight_bytes(json.loads(self.text(point))) / 1e6

    def candidates(self, choices: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns each width's possible values if group i keeps one of `choices[i]`, ascending."""
        result = []
        for axis, width in enumerate(self.fixed):
            sums = np.array([width])
            for group, rows in self.shares.items():
                sums = np.unique(sums[:, None] + rows[choices[group], axis])
            result.append(sums)
        return result

    @property
    def shape(self) -> tuple[Any, ...]:
        """A key that is equal for blocks with the same text at equal widths."""
        return self.pieces, self.matrix.tobytes(), self.constants.tobytes()


@dataclasses.dataclass(frozen=True, eq=False)
class Blueprint:
    """A network's operators. Made by `draw`.

    Attributes:
        blocks: the operators, split into those that run on their own.
        whole: all operators as one block.
    """

    blocks: tuple[Block, ...]
    whole: Block

    def text(self, channel_counts: Sequence[int] | np.ndarray) -> str:
        """Returns the text of the whole network; `operators.build` makes a file of it."""
        return self.whole.text(self.whole.point(channel_counts))


def draw(
    graph: ChannelGraph,
    seed: int = 0,
    converted: Callable[[keras.Model], bytes] = convert,
) -> Blueprint:
    """Finds a network's operators and the channels on which their shapes depend.

    Args:
        graph: `analyze(model)`.
        seed: seed of the random plans.
        converted: function that converts a Keras model to the content of a .tflite file.

    Returns:
        The `Blueprint`.

    Raises:
        AmcError: the model cannot be converted, or a number in the file that
            differs between plans is not a width of the network.
    """
    rng = np.random.default_rng(seed)
    vectors = channel_vectors(graph)
    learnt: list[dict[str, Any]] = []
    keeps: list[np.ndarray] = []

    def add(plan) -> None:
        model = rebuild(graph.network.model, graph, plan)
        try:
            learnt.append(ops.read(converted(model)))
        except ValueError as error:
            raise AmcError(f"the model cannot be converted: {error}") from error
        keeps.append(graph.keep_mask(plan))

    for plan in (*telling_plans(graph, vectors, rng), random_plan(graph, rng)):
        add(plan)
    widths = _Widths(graph, vectors)
    while True:
        seen = np.stack([counts(vectors, keep) for keep in keeps])
        try:
            blocks = [
                _block(parts, seen, widths) for parts in zip(*map(ops.blocks, learnt), strict=True)
            ]
            return Blueprint(tuple(blocks), _block(learnt, seen, widths))
        except _AmbiguousError as error:
            if len(learnt) == _MAX_CONVERSIONS:
                raise AmcError(str(error)) from None
            add(random_plan(graph, rng))


class _AmbiguousError(Exception):
    """Several different widths explain a number."""


class _Widths:
    """The channels that the widths of a network count.

    A width may count only part of a group: for example, the channels that a
    padding puts before and behind others. The group's count alone does not say
    how many of these a plan keeps. So the kept channels are taken as evenly
    spread, as they are on average; then all widths are consistent.
    """

    def __init__(self, graph: ChannelGraph, vectors: csr_array):
        counted = vectors.toarray()
        joint = [whole for whole, parts in graph.parts.items() if len(parts) > 1]
        if counted[:, joint].any():
            raise AmcError(
                "the latency of networks in which an axis is cut into heads and widths is not "
                "predicted; give a budget of MACs or parameters"
            )
        self.fixed = counted.sum(axis=1, dtype=np.int64)
        self.shares = []  # for each group, array (counts, vectors)
        for group in graph.groups.values():
            own = counted[:, group.classes]
            self.fixed = self.fixed - own.sum(axis=1)
            rows = [own[:, _spread(group.channels, k)].sum(axis=1) for k in range(len(own.T) + 1)]
            self.shares.append(np.array(rows, np.int64))
        # Channels that appear in the same vectors are merged: one of each kind shows which
        # vectors depend on which.
        self.distinct = np.unique(counted, axis=1)


def _spread(total: int, count: int) -> np.ndarray:
    """Picks `count` of `total` positions, evenly spread."""
    return np.arange(count) * total // max(count, 1)


def _block(parts: Sequence[dict[str, Any]], seen: np.ndarray, widths: _Widths) -> Block:
    """Makes the block of which the operators of each plan are an example.

    Args:
        parts: the operators under each plan.
        seen: number of channels that each vector counts under each plan, (plans, vectors).
        widths: the channels that the vectors count.
    """
    label = ops.label(parts[0])
    texts = [ops.text_of(part) for part in parts]
    pieces = {tuple(_NUMBER.split(text)) for text in texts}
    if len(pieces) > 1:
        raise AmcError(f"{label}: the converter makes different operators for different widths")
    numbers = np.array([[int(n) for n in _NUMBER.findall(text)] for text in texts])
    vector_of: dict[int, int] = {}
    for i in np.flatnonzero((numbers != numbers[0]).any(axis=0)).tolist():
        found = np.flatnonzero((seen == numbers[:, [i]]).all(axis=0))
        if not len(found):
            raise AmcError(
                f"{label}: the converted files of {len(texts)} plans hold {numbers[:, i].tolist()} "
                "in one place, which are not the widths of anything in the network"
            )
        if len(found) > 1:
            raise _AmbiguousError(f"{label}: widths in the file cannot be told apart")
        vector_of[i] = int(found[0])
    axes = _basis(dict.fromkeys(vector_of.values()), widths.distinct)
    matrix = np.zeros((numbers.shape[1], len(axes)))
    constants = numbers[0].astype(float)
    if vector_of:
        used = widths.distinct[list(vector_of.values())].T.astype(float)
        factors = np.linalg.lstsq(widths.distinct[axes].T.astype(float), used, rcond=None)[0].T
        # Without -0.0, so that equal blocks have equal bytes.
        matrix[list(vector_of)] = np.round(factors, 9) + 0.0
        constants[list(vector_of)] = 0.0
    return Block(
        label=label,
        kind=parts[0]["operators"][-1]["code"],
        pieces=next(iter(pieces)),
        matrix=matrix,
        constants=constants,
        fixed=widths.fixed[axes],
        shares={
            group: rows[:, axes] for group, rows in enumerate(widths.shares) if rows[:, axes].any()
        },
    )


def _basis(vectors: Iterable[int], counted: np.ndarray) -> list[int]:
    """Returns the first vectors of which all others are linear combinations."""
    basis: list[int] = []
    for vector in vectors:
        if np.linalg.matrix_rank(counted[[*basis, vector]]) > len(basis):
            basis.append(vector)
    return basis


def _joined(pieces: Sequence[str], numbers: np.ndarray) -> str:
    parts = [pieces[0]]
    for number, piece in zip(numbers.tolist(), pieces[1:], strict=True):
        parts += [str(number), piece]
    return "".join(parts)
