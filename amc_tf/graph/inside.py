"""The calls that a layer is made of, as `amc_tf.graph.composites` finds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from amc_tf.graph.output_specs import tensors_of
from amc_tf.graph.parameter import Parameter


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
        outputs: what the layer returned, flat; None for what no input has a part in.
        marked: whether the tensors' batch is a mark, and not that of the network.
        unread: paths of weights of the layer that no call reads.
    """

    inputs: Sequence[Any]
    parameters: Sequence[tuple[Any, Parameter]]
    steps: Sequence[Any]
    outputs: Sequence[Any]
    marked: bool
    unread: Sequence[str] = ()


def is_symbol(x: Any) -> bool:
    """Returns whether an argument is a symbolic tensor."""
    return isinstance(x, keras.KerasTensor)


def is_array(x: Any) -> bool:
    """Returns whether an argument is an array or a tensor that holds values."""
    return hasattr(x, "__array__") and not is_symbol(x) and not isinstance(x, keras.Variable)


def given(step: Any) -> list[Any]:
    """Returns the arguments of a call, flat."""
    return keras.tree.flatten((step.arguments.args, step.arguments.kwargs))


def run(
    inside: Inside, tensors: Sequence[Any], invoke: Callable[..., Any] | None = None
) -> list[Any]:
    """Runs the calls of a layer on symbolic or real tensors.

    Args:
        inside: the calls.
        tensors: one for each of `inside.inputs`.
        invoke: function that is called as `invoke(operation, args, kwargs)`, instead of the
            operation.

    Returns:
        A tensor for each of `inside.outputs`, None where that is None.
    """
    values = dict(zip(map(id, inside.inputs), tensors, strict=True))
    values.update((id(symbol), parameter(tensors[0])) for symbol, parameter in inside.parameters)
    for step in inside.steps:
        args, kwargs = keras.tree.map_structure(
            lambda x: values[id(x)] if is_symbol(x) else x,
            (step.arguments.args, step.arguments.kwargs),
        )
        operation = step.operation
        made = operation(*args, **kwargs) if invoke is None else invoke(operation, args, kwargs)
        values.update(zip(map(id, step.outputs), tensors_of(made), strict=True))
    return [values.get(id(tensor)) for tensor in inside.outputs]
