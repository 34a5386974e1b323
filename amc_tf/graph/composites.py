"""Layers that are made of layers or operations, looked into.

A block written as a class is one opaque call of a network. Its `call` is run on symbolic tensors,
which gives the calls it is made of; they take its place. Weights that the block adds to, or
multiplies by, tensors itself become layers (`amc_tf.graph.parameter`). The calls are run beside the
block on random inputs, and where they do not compute the same, or do something else in training,
the block stays as it is.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.graph.keras_structure import (
    infer,
    nodes_in_order,
    unrecorded,
    weights_take_symbols,
)

# A user's row of the layer table is kept on the user's class, so that the two stay together.
RULE_ATTRIBUTE = "_amc_tf_layer_rule"
# Sizes of the check; an open size needs to be large enough for strides and windows.
_BATCH, _OPEN_SIZE = 2, 32
_TOLERANCE = 1e-4  # of the greatest value


class Closed(Exception):
    """The reason why a layer cannot be looked into."""


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """The calls that a layer is made of.

    Attributes:
        inputs: the symbolic tensors that the layer was called on, in the order of its arguments.
        nodes: Keras's records of the calls, in topological order.
        outputs: what the layer returned, flat.
    """

    inputs: Sequence[Any]
    nodes: Sequence[Any]
    outputs: Sequence[Any]


def is_composite(operation: Any) -> bool:
    """Returns whether an operation is a layer of a class that is not Keras's own.

    A class that the user registered is taken as its row says, and not looked into.
    """
    kind = type(operation)
    return (
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
    modes = [{}]
    if "training" in inspect.signature(type(layer).call).parameters:
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        modes = [{"training": None}, {"training": True}]
    with unrecorded(layer), weights_take_symbols():
        found = [_called(layer, args, {**kwargs, **mode}) for mode in modes]
    first, *others = found
    if any(map(_calls_functions, first.nodes)):
        raise Closed("its operations call functions of their own (a loop or a branch)")
    if any(_operations(first) != _operations(other) for other in others):
        raise Closed("it does something else in training")
    _require_weights(layer, first)
    _require_same(layer, args, {**kwargs, **modes[0]}, first)
    return first


def _called(layer: Any, args: tuple, kwargs: dict[str, Any]) -> Inside:
    inputs: list[Any] = []

    def fresh(x: Any) -> Any:
        if not isinstance(x, keras.KerasTensor):
            return x
        inputs.append(keras.KerasTensor(x.shape, x.dtype, name=x.name))
        return inputs[-1]

    args, kwargs = keras.tree.map_structure(fresh, (args, kwargs))
    try:
        outputs = keras.tree.flatten(layer.call(*args, **kwargs))
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise Closed(
            f"its call does not take symbolic tensors ({lines[0] if lines else ''})"
        ) from error
    if not all(isinstance(x, keras.KerasTensor) for x in outputs):
        raise Closed("it returns something other than tensors")
    try:
        nodes = nodes_in_order(_Ends(inputs, outputs))
    except AttributeError as error:  # a tensor that no call of the layer's made
        raise Closed("it uses tensors from elsewhere") from error
    return Inside(inputs, nodes, outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class _Ends:
    inputs: Sequence[Any]
    outputs: Sequence[Any]


def _operations(inside: Inside) -> list[Any]:
    """Returns what tells two runs apart: layers by identity, other operations by their class."""
    return [
        node.operation if isinstance(node.operation, keras.Layer) else type(node.operation)
        for node in inside.nodes
    ]


def _require_weights(layer: Any, inside: Inside) -> None:
    """Checks that every weight of a layer is one of its calls', which carry it on."""
    seen = {
        id(weight) for node in inside.nodes for weight in getattr(node.operation, "weights", ())
    }
    for node in inside.nodes:
        seen.update(id(x) for x in _given(node) if isinstance(x, keras.Variable))
    missing = [weight.path for weight in layer.weights if id(weight) not in seen]
    if missing:
        raise Closed(f"its calls do not show where it uses its weight {missing[0]!r}")


def _calls_functions(node: Any) -> bool:
    """Returns whether an operation is given functions, in which tensors may be hidden."""
    own = () if isinstance(node.operation, keras.Layer) else vars(node.operation).values()
    return any(isinstance(x, types.FunctionType) for x in (*_given(node), *own))


def _given(node: Any) -> list[Any]:
    return keras.tree.flatten((node.arguments.args, node.arguments.kwargs))


def _require_same(layer: Any, args: tuple, kwargs: dict[str, Any], inside: Inside) -> None:
    """Checks on random inputs that the calls compute what the layer computes."""
    rng = np.random.default_rng(0)
    args, kwargs = keras.tree.map_structure(
        lambda x: _random(x, rng) if isinstance(x, keras.KerasTensor) else x, (args, kwargs)
    )
    given = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, np.ndarray)]
    try:
        expected = keras.tree.flatten(infer(layer, args, kwargs))
        received = _run(inside, given)
    except Exception as error:
        raise Closed(f"it cannot be compared with its calls on random inputs ({error})") from error
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


def _run(inside: Inside, given: Sequence[np.ndarray]) -> list[Any]:
    values = dict(zip(map(id, inside.inputs), given, strict=True))
    for node in inside.nodes:
        args, kwargs = keras.tree.map_structure(
            lambda x: values[id(x)] if isinstance(x, keras.KerasTensor) else x,
            (node.arguments.args, node.arguments.kwargs),
        )
        made = keras.tree.flatten(infer(node.operation, args, kwargs))
        values.update(zip(map(id, node.outputs), made, strict=True))
    return [values[id(tensor)] for tensor in inside.outputs]
