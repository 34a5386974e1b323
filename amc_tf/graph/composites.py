"""Layers that are made of layers or operations, looked into.

A block written as a class is one opaque call of a network. Its `call` is run on symbolic tensors,
which gives the calls it is made of; they take its place. Weights that the block itself reads (a
scale of channels, learnt positions) become layers (`amc_tf.graph.parameter`). The calls are run
beside the block on random inputs, and where they do not compute the same, or do something else in
training, the block stays as it is.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.graph.keras_structure import (
    infer,
    nodes_in_order,
    numpy_ops,
    symbolic_weights,
    unrecorded,
)
from amc_tf.graph.parameter import Parameter

# A user's row of the layer table is kept on the user's class, so that the two stay together.
RULE_ATTRIBUTE = "_amc_tf_layer_rule"
# Sizes of the check; an open size needs to be large enough for strides and windows.
_BATCH, _OPEN_SIZE = 2, 32
_TOLERANCE = 1e-4  # of the greatest value
# A batch that is found again in the sizes of operations, as multiples of a prime that few layers
# are as wide as. It can be divided by numbers of windows. Tensors that code makes for the batch
# (masks, noise) are real ones, so it is no larger than it need be.
_PRIME, _WINDOWS = 1009, 64
_REPEATS = (numpy_ops.Tile, numpy_ops.BroadcastTo, numpy_ops.Repeat)


class Closed(Exception):
    """The reason why a layer cannot be looked into."""


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A call of an operation, with the fields that Keras's own record of it has, too."""

    operation: Any
    arguments: Any
    outputs: Sequence[Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """The calls that a layer is made of.

    Attributes:
        inputs: the symbolic tensors that the layer was called on, in the order of its arguments.
        parameters: the weights that operations read, each with its symbolic tensor.
        steps: the calls, in topological order.
        outputs: what the layer returned, flat.
        marked: whether the tensors' batch is a mark, and not that of the network.
        unread: `id` of each weight of the layer's own that no operation reads.
    """

    inputs: Sequence[Any]
    parameters: Sequence[tuple[Any, Parameter]]
    steps: Sequence[Any]
    outputs: Sequence[Any]
    marked: bool
    unread: frozenset[int]


# Layers of Keras that only call others.
_OF_KERAS = (keras.layers.Bidirectional,)


def is_composite(operation: Any) -> bool:
    """Returns whether an operation is a layer to be looked into: of a class of the user's.

    A class that the user registered is taken as its row says.
    """
    kind = type(operation)
    return kind in _OF_KERAS or (
        isinstance(operation, keras.Layer)
        and kind.__module__.split(".")[0] not in ("keras", "amc_tf")
        and RULE_ATTRIBUTE not in vars(kind)
    )


def look_into(layer: Any, args: tuple, kwargs: dict[str, Any]) -> Inside:
    """Finds the calls that a layer is made of.

    Args:
        layer: a built layer.
        args: positional arguments of its call, with a `KerasTensor` in the place of each tensor.
        kwargs: keyword arguments, likewise.

    Raises:
        Closed: its calls cannot be seen, or are not all that it does.
    """
    try:
        return _looked_into(layer, args, kwargs, marked=False)
    except Closed:
        # Code that computes with the size of the batch needs a number.
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if _is_symbol(x)]
        if any(x.shape[0] is not None for x in tensors):
            raise
        return _looked_into(layer, args, kwargs, marked=True)


def _looked_into(layer: Any, args: tuple, kwargs: dict[str, Any], marked: bool) -> Inside:
    batch = _PRIME * _WINDOWS if marked else None
    inference: dict[str, Any] = {}
    others: list[Inside] = []
    with unrecorded(layer):
        if "training" in inspect.signature(type(layer).call).parameters:
            kwargs = {key: value for key, value in kwargs.items() if key != "training"}
            inference = {"training": None}
            # Only its operations are looked at, and training makes noise for each sample.
            small = _WINDOWS if marked else None
            others = [_called(layer, args, {**kwargs, "training": True}, small)]
        first = _called(layer, args, {**kwargs, **inference}, batch)
    if any(map(_calls_functions, first.steps)):
        raise Closed("its operations call functions of their own (a loop or a branch)")
    if any(_operations(first) != _operations(other) for other in others):
        raise Closed("it does something else in training")
    _require_weights(layer, first)
    _require_same(layer, args, {**kwargs, **inference}, first)
    return first


def _called(layer: Any, args: tuple, kwargs: dict[str, Any], batch: int | None) -> Inside:
    inputs: list[Any] = []

    def fresh(x: Any) -> Any:
        if not _is_symbol(x):
            return x
        shape = x.shape if batch is None else (batch, *x.shape[1:])
        inputs.append(keras.KerasTensor(shape, x.dtype, name=x.name))
        return inputs[-1]

    args, kwargs = keras.tree.map_structure(fresh, (args, kwargs))
    with symbolic_weights(layer, constants=batch is not None) as weights:
        try:
            outputs = keras.tree.flatten(layer.call(*args, **kwargs))
        except Exception as error:
            raise Closed(
                f"its call does not take symbolic tensors ({_first_line(error)})"
            ) from error
    if not all(map(_is_symbol, outputs)):
        raise Closed("it returns something other than tensors")
    sources = [*inputs, *(symbol for symbol, _ in weights)]
    try:
        nodes = nodes_in_order(_Ends(sources, outputs))
    except AttributeError as error:  # a tensor that no call of the layer's made
        raise Closed("it uses tensors from elsewhere") from error
    read = {id(x) for x in outputs} | {id(x) for node in nodes for x in _given(node)}
    of_symbol = {id(symbol): (symbol, weight) for symbol, weight in weights if id(symbol) in read}
    steps, parameters = nodes, []
    if batch is not None:
        steps, parameters = _for_any_batch(nodes, of_symbol, batch)
        read = {id(x) for x in outputs} | {id(x) for step in steps for x in _given(step)}
    parameters += [
        (symbol, Parameter.sharing(weight))
        for symbol, weight in of_symbol.values()
        if id(symbol) in read
    ]
    shared = [id(parameter.value) for _, parameter in parameters]
    if len(set(shared)) < len(shared):
        raise Closed("it reads a weight of its own in several ways")
    unread = frozenset(id(weight) for _, weight in weights) - frozenset(shared)
    return Inside(inputs, parameters, steps, outputs, batch is not None, unread)


@dataclasses.dataclass(frozen=True, eq=False)
class _Ends:
    inputs: Sequence[Any]
    outputs: Sequence[Any]


def _for_any_batch(
    nodes: Sequence[Any], weights: Mapping[int, tuple[Any, Any]], batch: int
) -> tuple[list[Any], list[tuple[Any, Parameter]]]:
    """Rewrites calls whose sizes hold that of the batch, for any batch.

    Returns:
        The calls, and the weights that are repeated for each sample, as parameters.
    """
    steps, parameters = [], []
    for node in nodes:
        operation, given = node.operation, _given(node)
        if type(operation) in _REPEATS and id(given[0]) in weights:
            symbol, weight = weights[id(given[0])]
            if node.outputs[0].shape == (batch, *symbol.shape[1:]) and symbol.shape[0] == 1:
                parameters.append((node.outputs[0], Parameter.sharing(weight, each_sample=True)))
                continue
        if type(operation) is numpy_ops.Reshape:
            sizes = node.outputs[0].shape
            newshape = [-1 if size % _PRIME == 0 else size for size in sizes]
            if newshape.count(-1) == 1:
                operation = numpy_ops.Reshape(tuple(newshape), name=operation.name)
        own = [] if isinstance(operation, keras.Layer) else list(vars(operation).values())
        if any(map(_is_marked, keras.tree.flatten([own, given]))):
            raise Closed("it computes with the size of the batch")
        steps.append(Step(operation, node.arguments, node.outputs))
    return steps, parameters


def _is_marked(x: Any) -> bool:
    if isinstance(x, int):
        return x != 0 and x % _PRIME == 0
    if _is_symbol(x) or isinstance(x, keras.Variable):
        return False
    return any(size and size % _PRIME == 0 for size in getattr(x, "shape", ()))


def _is_symbol(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


def _operations(inside: Inside) -> list[Any]:
    """Returns what tells two runs apart: layers by identity, other operations by their class."""
    return [
        step.operation if isinstance(step.operation, keras.Layer) else type(step.operation)
        for step in inside.steps
    ]


def _require_weights(layer: Any, inside: Inside) -> None:
    """Checks that every weight of a layer is one of its calls', which carry it on."""
    holders = [parameter for _, parameter in inside.parameters]
    holders += [step.operation for step in inside.steps if isinstance(step.operation, keras.Layer)]
    seen = {id(weight) for holder in holders for weight in holder.weights}
    # A weight that no operation reads is not used; unless a tensor was made of it elsewhere.
    if not any(np.ndim(x) for step in inside.steps for x in _given(step) if _is_array(x)):
        seen.update(inside.unread)
    missing = [weight.path for weight in layer.weights if id(weight) not in seen]
    if missing:
        raise Closed(f"its calls do not show where it uses its weight {missing[0]!r}")


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or keras.ops.is_tensor(x) and not _is_symbol(x)


def _calls_functions(step: Any) -> bool:
    """Returns whether an operation is given functions, in which tensors may be hidden."""
    own = () if isinstance(step.operation, keras.Layer) else vars(step.operation).values()
    return any(isinstance(x, types.FunctionType) for x in (*_given(step), *own))


def _given(step: Any) -> list[Any]:
    return keras.tree.flatten((step.arguments.args, step.arguments.kwargs))


def _require_same(layer: Any, args: tuple, kwargs: dict[str, Any], inside: Inside) -> None:
    """Checks on random inputs that the calls compute what the layer computes."""
    rng = np.random.default_rng(0)
    args, kwargs = keras.tree.map_structure(
        lambda x: _random(x, rng) if _is_symbol(x) else x, (args, kwargs)
    )
    given = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, np.ndarray)]
    try:
        expected = keras.tree.flatten(infer(layer, args, kwargs))
        received = run(inside, given, infer)
    except Exception as error:
        raise Closed(
            f"it cannot be compared with its calls on random inputs ({_first_line(error)})"
        ) from error
    for a, b in zip(map(keras.ops.convert_to_numpy, expected), received, strict=True):
        a, b = a.astype(np.float64), keras.ops.convert_to_numpy(b).astype(np.float64)
        greatest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
        if a.shape != b.shape or not np.allclose(
            a, b, rtol=0.0, atol=_TOLERANCE * greatest, equal_nan=True
        ):
            raise Closed("its calls do not compute what it computes")


def _random(tensor: Any, rng: np.random.Generator) -> np.ndarray:
    shape = [_BATCH if tensor.shape[0] is None else tensor.shape[0]]
    shape += [_OPEN_SIZE if size is None else size for size in tensor.shape[1:]]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if dtype.startswith(("float", "bfloat")):
        return rng.normal(size=shape).astype("float32")
    return rng.integers(0, 2, shape).astype(dtype)


def run(
    inside: Inside, given: Sequence[Any], invoke: Callable[..., Any] | None = None
) -> list[Any]:
    """Runs the calls of a layer on symbolic or real tensors.

    Args:
        inside: the calls.
        given: a tensor for each of `inside.inputs`.
        invoke: function that is called as `invoke(operation, args, kwargs)`, instead of the
            operation.

    Returns:
        A tensor for each of `inside.outputs`.
    """
    values = dict(zip(map(id, inside.inputs), given, strict=True))
    values.update((id(symbol), parameter(given[0])) for symbol, parameter in inside.parameters)
    for step in inside.steps:
        args, kwargs = keras.tree.map_structure(
            lambda x: values[id(x)] if _is_symbol(x) else x,
            (step.arguments.args, step.arguments.kwargs),
        )
        made = (
            step.operation(*args, **kwargs)
            if invoke is None
            else invoke(step.operation, args, kwargs)
        )
        values.update(zip(map(id, step.outputs), keras.tree.flatten(made), strict=True))
    return [values[id(tensor)] for tensor in inside.outputs]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
