"""Normalisations that int8 gets wrong: those of rows of very different size.

A normalisation divides each row by the root of its variance. In int8 all variances of a tensor have
one scale, and so have all rows before it: a quiet row beside loud ones has few steps, or none, and
is then blown up to full size. Where the calibration data have such rows, the normalisation stays
float, and so does what makes its rows, as far as its rounding would be seen in them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_tools import flatbuffer
from tflite_tools.intermediate import tensor_values
from tflite_tools.representative import Sample

_B = schema.BuiltinOperator
_ROOTS = frozenset((_B.RSQRT, _B.SQRT))
_REDUCTIONS = frozenset((_B.MEAN, _B.SUM))
_SQUARES = frozenset((_B.SQUARED_DIFFERENCE, _B.SQUARE, _B.MUL))
_ELEMENTWISE = frozenset(
    (_B.ADD, _B.SUB, _B.MUL, _B.DIV, _B.NEG, _B.MAXIMUM, _B.RELU, _B.ABS, *_ROOTS)
)
# They hand on values, or sums of values, with the rounding of what they read.
_HANDED_ON = frozenset(
    (
        *(_B.ADD, _B.SUB, _B.RESHAPE, _B.TRANSPOSE, _B.CONCATENATION, _B.PAD, _B.EXPAND_DIMS),
        *(_B.SQUEEZE, _B.STRIDED_SLICE, _B.SLICE, _B.SPLIT, _B.GATHER),
    )
)
# Greatest relative error that rounding may cause in a normalised row.
_TOLERATED = 0.05
# Kernels look a root up in a table of about as many entries, with 16 bits, too.
_ROOT_STEPS = 255
_SAMPLES = 32


def float_outputs(content: bytes, samples: Sequence[Sample], bits: int = 8) -> list[str]:
    """Finds the operators that stay float for the sake of quiet rows.

    Args:
        content: a float32 file of one subgraph.
        samples: calibration samples; some of them are run.
        bits: of an activation, 8 or 16.

    Returns:
        The names of the operators' output tensors.
    """
    graph = _Graph(content)
    found = [n for o, kind in graph.operators if kind in _ROOTS for n in graph.normalisations(o)]
    if not found:
        return []
    chosen = np.unique(np.linspace(0, len(samples) - 1, _SAMPLES).astype(int))
    least: list[float] = [np.inf] * len(found)
    most = [0.0] * len(found)
    ranges: dict[int, tuple[float, float]] = {}
    for values in tensor_values(content, [samples[i] for i in chosen]):
        for index, name in enumerate(graph.names):
            array = values.get(name)
            if array is not None and array.dtype.kind == "f" and array.size:
                low, high = ranges.get(index, (0.0, 0.0))
                ranges[index] = (min(low, float(array.min())), max(high, float(array.max())))
        for number, normalisation in enumerate(found):
            squares = values[graph.names[normalisation.root_input]]
            # Rows without any variance are the same in every format.
            varying = squares[values[graph.names[normalisation.variance]] != 0]
            if varying.size:
                least[number] = min(least[number], float(varying.min()))
                most[number] = max(most[number], float(varying.max()))
    kept: set[int] = set()
    for normalisation, low, high in zip(found, least, most, strict=True):
        if not np.isfinite(low):
            continue  # no row varies
        # A root halves the relative error of half a step of the variances.
        rounding = high / _ROOT_STEPS / 4 / max(low, 1e-30)
        # A rounded value is off by a deviation of step / sqrt(12); the quietest row's is sqrt(low).
        widest = _TOLERATED * np.sqrt(12 * max(low, 0.0)) * (2**bits - 1)
        before = _made_by(graph, normalisation.rows, ranges, widest)
        if rounding > _TOLERATED or before:
            kept |= normalisation.operators | before
    return [graph.names[i] for o in sorted(kept) for i in graph.outputs(o)]


def _made_by(graph: _Graph, tensor: int, ranges: dict, widest: float) -> set[int]:
    """Finds the operators before a tensor that have a wider range than is allowed."""
    low, high = ranges.get(tensor, (0.0, 0.0))
    operator = graph.producer.get(tensor)
    if operator is None or high - low <= widest:
        return set()
    found = {operator}
    if graph.kind(operator) in _HANDED_ON:
        for index in graph.activations(operator):
            found |= _made_by(graph, index, ranges, widest)
    return found


@dataclasses.dataclass(frozen=True)
class _Normalisation:
    """The operators of one normalisation.

    Attributes:
        operators: their places in the file.
        rows: the tensor that is normalised.
        variance: the tensor of variances, or of mean squares.
        root_input: the tensor whose root is taken: the same with what is added to it.
    """

    operators: set[int]
    rows: int
    variance: int
    root_input: int


class _Graph:
    """The operators of a file, and which makes and reads each tensor."""

    def __init__(self, content: bytes):
        self._model = flatbuffer.read(content)
        self._graph = self._model.subgraphs[0]
        self.names = [flatbuffer.text(t.name) for t in self._graph.tensors]
        self.producer = {int(t): i for i, o in enumerate(self._graph.operators) for t in o.outputs}

    @property
    def operators(self) -> Iterator[tuple[int, int]]:
        """The place and the kind of each operator."""
        return ((i, self.kind(i)) for i in range(len(self._graph.operators)))

    def kind(self, operator: int) -> int:
        code = self._model.operatorCodes[self._graph.operators[operator].opcodeIndex]
        return flatbuffer.kind(code)

    def outputs(self, operator: int) -> list[int]:
        return [int(i) for i in self._graph.operators[operator].outputs]

    def activations(self, operator: int) -> list[int]:
        """The tensors that an operator reads, without constants."""
        return [
            int(i)
            for i in self._graph.operators[operator].inputs
            if i >= 0 and self._model.buffers[self._graph.tensors[i].buffer].data is None
        ]

    def normalisations(self, root: int) -> Iterator[_Normalisation]:
        """Yields the normalisation that a root belongs to, if there is one."""
        operators = {root}
        (root_input,) = self.activations(root)[:1] or (-1,)
        variance = root_input
        while (operator := self.producer.get(variance)) is not None:
            operators.add(operator)
            if self.kind(operator) in _REDUCTIONS:
                break
            if self.kind(operator) not in _ELEMENTWISE or len(self.activations(operator)) != 1:
                return
            (variance,) = self.activations(operator)
        else:
            return
        squares = next((self.producer.get(i) for i in self.activations(operator)), None)
        if squares is None or self.kind(squares) not in _SQUARES:
            return
        operators.add(squares)
        rows = {i for i in self.activations(squares)}
        for index in sorted(rows):  # the mean that is subtracted from the rows
            mean = self.producer.get(index)
            if mean is not None and self.kind(mean) in _REDUCTIONS and len(rows) > 1:
                operators.add(mean)
                rows.discard(index)
        if len(rows) != 1:
            return
        (tensor,) = rows
        self._add_readers(operators, tensor)
        yield _Normalisation(operators, tensor, variance, root_input)

    def _add_readers(self, operators: set[int], rows: int) -> None:
        """Adds the elementwise operators that read nothing but the normalisation and its rows."""
        for operator, kind in self.operators:  # in the order in which they run
            known = {rows, *(i for o in operators for i in self.outputs(o))}
            read = set(self.activations(operator))
            if kind in _ELEMENTWISE and read <= known and read - {rows}:
                operators.add(operator)
