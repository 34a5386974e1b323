"""MACs of a traced TensorFlow function, with the functions, branches and loops inside it.

Only what depends on the function's inputs and reaches its outputs is counted: products of weights
alone are folded when a model is converted, and what nobody reads is dropped.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from amc_tf.graph.tensorflow_macs import COUNTED, is_uncounted, macs_of


@dataclasses.dataclass(frozen=True)
class Work:
    """MACs, and what could not be counted.

    Attributes:
        macs: number of multiply-accumulates.
        uncounted: types of the operations that are not counted, in order, each once.
    """

    macs: int = 0
    uncounted: tuple[str, ...] = ()

    def __add__(self, other: Work) -> Work:
        uncounted = dict.fromkeys(self.uncounted + other.uncounted)
        return Work(self.macs + other.macs, tuple(uncounted))

    def __bool__(self) -> bool:
        return bool(self.macs or self.uncounted)

    def times(self, count: int) -> Work:
        """Returns the work of doing this so often."""
        return Work(self.macs * count, self.uncounted)

    def shared(self, samples: int) -> Work:
        """Returns the work of one sample, if this is the work of so many."""
        return Work(self.macs // samples, self.uncounted)


NOTHING = Work()

# Values of scalar inputs that are known before the function runs, by the tensor's name.
Known = Mapping[str, np.ndarray]


def work_of(
    graph: tf.Graph,
    outputs: Iterable[tf.Tensor],
    data: Iterable[tf.Tensor],
    known: Known | None = None,
) -> Iterator[tuple[tf.Operation, Work]]:
    """Yields every operation of a graph that does work, with its work.

    Args:
        graph: graph of a traced function.
        outputs: the tensors that are read.
        data: the inputs that differ from sample to sample.
        known: inputs whose values are known.
    """
    needed = _needed(outputs)
    varying = _varying(graph, {tensor.name for tensor in data})
    for operation in graph.get_operations():
        if operation.name in needed and any(x.name in varying for x in operation.inputs):
            work = _work(operation, varying, known or {})
            if work:
                yield operation, work


def _needed(outputs: Iterable[tf.Tensor]) -> set[str]:
    """Returns the names of the operations that tensors depend on."""
    needed: set[str] = set()
    waiting = [tensor.op for tensor in outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name not in needed:
            needed.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
    return needed


def _varying(graph: tf.Graph, given: set[str]) -> set[str]:
    """Returns the names of the tensors that depend on given ones."""
    varying = set(given)
    for operation in graph.get_operations():  # in order: a graph of TensorFlow 2 has no circles
        if any(tensor.name in varying for tensor in operation.inputs):
            varying.update(tensor.name for tensor in operation.outputs)
    return varying


def _work(operation: tf.Operation, varying: set[str], known: Known) -> Work:
    kind, arguments = operation.type, list(operation.inputs)
    if kind in COUNTED:
        macs = macs_of(operation)
        return Work(uncounted=(f"{kind} of unknown size",)) if macs is None else Work(macs)
    if kind in ("PartitionedCall", "StatefulPartitionedCall"):
        return _inside(operation, "f", arguments, varying, known)
    if kind in ("If", "StatelessIf"):
        branches = ("then_branch", "else_branch")
        return _largest(
            _inside(operation, name, arguments[1:], varying, known) for name in branches
        )
    if kind in ("Case", "StatelessCase"):
        functions = range(len(operation.get_attr("branches")))
        return _largest(
            _inside(operation, "branches", arguments[1:], varying, known, i) for i in functions
        )
    if kind in ("While", "StatelessWhile"):
        return _loop(operation, varying, known)
    return Work(uncounted=(kind,)) if is_uncounted(kind) else NOTHING


def _largest(branches: Iterable[Work]) -> Work:
    """Returns the work of the most expensive branch, and all that is not counted."""
    found = list(branches)
    everything = functools.reduce(Work.__add__, found)
    return dataclasses.replace(everything, macs=max(work.macs for work in found))


def _inside(
    operation: tf.Operation,
    attribute: str,
    arguments: Sequence[tf.Tensor],
    varying: set[str],
    known: Known,
    number: int = 0,
) -> Work:
    """Returns the work of a function that an operation calls once."""
    inner = _function_of(operation, attribute, number)
    if inner is None:
        return Work(uncounted=(operation.type,))
    pairs = list(zip(inner.inputs, arguments, strict=True))
    values = {x.name: value for x, y in pairs if (value := _value(y, known)) is not None}
    data = [x for x, y in pairs if y.name in varying]
    return _total(inner, data, values)


def _function_of(operation: tf.Operation, attribute: str, number: int = 0) -> tf.Graph | None:
    """Returns the graph of a function that an operation calls; None if it was not traced here."""
    value = operation.get_attr(attribute)
    name = (value[number] if isinstance(value, list) else value).name
    # TensorFlow has no public way from the name of a function to its graph.
    return getattr(operation.graph._get_function(name), "graph", None)


def _total(inner: tf.Graph, data: Iterable[tf.Tensor], known: Known) -> Work:
    return sum((work for _, work in work_of(inner, inner.outputs, data, known)), NOTHING)


# --- loops ----------------------------------------------------------------------------------------


def _loop(operation: tf.Operation, varying: set[str], known: Known) -> Work:
    condition, body = _function_of(operation, "cond"), _function_of(operation, "body")
    if condition is None or body is None:
        return Work(uncounted=(operation.type,))
    given = {
        x.name for x, y in zip(body.inputs, operation.inputs, strict=True) if y.name in varying
    }
    while True:  # what varies in one round varies in the next
        inner = _varying(body, given)
        again = {x.name for x, y in zip(body.inputs, body.outputs, strict=True) if y.name in inner}
        if again <= given:
            break
        given |= again
    start = [_value(tensor, known) for tensor in operation.inputs]
    fixed = {
        x.name: value
        for x, y, value in zip(body.inputs, body.outputs, start, strict=True)
        if value is not None and _source(y) is x
    }
    data = [x for x in body.inputs if x.name in given]
    once = _total(body, data, fixed) + _total(condition, data, {})
    if not once:
        return NOTHING
    rounds = _rounds(condition, body, start)
    if rounds is None:
        return Work(uncounted=(f"{operation.type} of an unknown number of rounds",))
    return once.times(rounds)


def _rounds(condition: tf.Graph, body: tf.Graph, start: Sequence[np.ndarray | None]) -> int | None:
    """Returns how often a loop runs that counts up to a known number; None for any other loop.

    A loop may count in several ways, all of which end it.
    """
    known = {
        x.name: value for x, value in zip(condition.inputs, start, strict=True) if value is not None
    }
    position = {x.name: i for i, x in enumerate(condition.inputs)}
    rounds = []
    for test in _conjuncts(_source(condition.outputs[0])):
        if test.op.type not in ("Less", "LessEqual", "Greater", "GreaterEqual"):
            return None
        counter, end = map(_source, test.op.inputs)
        if test.op.type.startswith("Greater"):
            counter, end = end, counter
        i, j = position.get(counter.name), position.get(end.name)
        if i is None or (j is not None and _source(body.outputs[j]) is not body.inputs[j]):
            return None
        first, last, step = start[i], _value(end, known), _step(body, i)
        if first is None or last is None or step is None:
            return None
        inclusive = test.op.type.endswith("Equal")
        length = int(last) - int(first) + inclusive
        rounds.append(max(0, math.ceil(length / step)))
    return min(rounds)


def _conjuncts(test: tf.Tensor) -> Iterator[tf.Tensor]:
    """Yields the tests that must all hold for a test to hold."""
    if test.op.type == "LogicalAnd":
        for part in test.op.inputs:
            yield from _conjuncts(_source(part))
    else:
        yield test


def _step(body: tf.Graph, number: int) -> int | None:
    """Returns the positive constant that a round adds to a loop's variable; None if it does not."""
    sum_ = _source(body.outputs[number])
    if sum_.op.type not in ("Add", "AddV2"):
        return None
    terms = [_source(x) for x in sum_.op.inputs]
    others = [x for x in terms if x is not body.inputs[number]]
    if len(others) != 1:
        return None
    value = _value(others[0], {})
    return None if value is None or int(value) <= 0 else int(value)


def _source(tensor: tf.Tensor) -> tf.Tensor:
    """Returns what an identity passes on."""
    while tensor.op.type in ("Identity", "StopGradient", "PreventGradient"):
        tensor = tensor.op.inputs[0]
    return tensor


def _value(tensor: tf.Tensor, known: Known) -> np.ndarray | None:
    """Returns the value of a whole number that depends on constants alone; None for others."""
    if not tensor.dtype.is_integer or tensor.shape.rank != 0:
        return None
    tensor = _source(tensor)
    if tensor.name in known:
        return known[tensor.name]
    value = tf.get_static_value(tensor)
    if value is not None:
        return value
    needed = _needed([tensor])
    kinds = {op.type for op in tensor.graph.get_operations() if op.name in needed}
    if kinds & {"Placeholder", "VarHandleOp", "ReadVariableOp"}:
        return None
    with tf.compat.v1.Session(
        graph=tensor.graph, config=tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    ) as session:
        return session.run(tensor)
