"""How Keras models are built up, including what is private to Keras.

Private names of Keras are read here (and in `amc_tf.graph.layer_table`, which needs some classes),
so that a new release of Keras needs changes in few places.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.activations import activations as activation_ops
from keras.src.models.functional import Functional
from keras.src.ops import image as image_ops
from keras.src.ops import nn as nn_ops
from keras.src.ops import numpy as numpy_ops

from amc_tf.errors import AmcError
from amc_tf.graph.own_classes import adopt, own_steps

__all__ = [
    "activation_ops",
    "image_ops",
    "infer",
    "is_functional",
    "like",
    "made_by",
    "nesting",
    "nn_ops",
    "nodes_in_order",
    "numpy_ops",
    "pack",
    "plain",
    "twin",
    "uncompiled",
    "unrecorded",
    "weights_take_symbols",
]


# --- how inputs and outputs are nested --------------------------------------------------------


def nesting(model: keras.Model, side: str) -> Any:
    """Returns how the model's `inputs` or `outputs` are nested, as a structure for `pack`."""
    tensors = getattr(model, side)
    structure = getattr(model, f"_{side}_struct", None)
    if structure is None:
        return tensors if len(tensors) > 1 else tensors[0]
    return structure


def pack(structure: Any, tensors: list[Any]) -> Any:
    """Nests tensors (or arrays) in the same way as `structure`."""
    return keras.tree.pack_sequence_as(structure, tensors)


def like(model: keras.Model, inputs: list[Any], outputs: list[Any]) -> keras.Model:
    """Makes a functional model as `model` is: of its class, nested likewise.

    Args:
        model: the model to be like; a class of the user's own keeps its training step and what
            it needs (see `amc_tf.graph.own_classes`).
        inputs: symbolic tensors in the order of `model.inputs`.
        outputs: symbolic tensors in the order of `model.outputs`.

    Raises:
        AmcError: the user's class cannot be given these layers.
    """
    made = _plain(model, inputs, outputs)
    kind: Any = type(model)
    if kind in (keras.Model, Functional, keras.Sequential):
        return made
    if isinstance(model, keras.Sequential):
        if not own_steps(model):
            return made
        chain = _chain(model, made)
        made = kind.__new__(kind)
        keras.Sequential.__init__(made, chain, name=model.name)
    elif isinstance(model, Functional):
        given = _nested(model, inputs, outputs)
        made = kind.__new__(kind)  # its own __init__ might build other layers
        Functional.__init__(made, *given, name=model.name)
    adopt(made, model)
    return made


def uncompiled(model: keras.Model) -> keras.Model:
    """Makes a model of the same class and layers without compile settings."""
    return like(model, model.inputs, model.outputs)


def plain(model: keras.Model) -> keras.Model:
    """Makes a plain `keras.Model` of the same layers without compile settings, to be saved.

    A class or a loss that the user wrote would have to be registered wherever the file is
    read, and the optimizer's state doubles or triples the size of the file.
    """
    return _plain(model, model.inputs, model.outputs)


def _plain(model: keras.Model, inputs: list[Any], outputs: list[Any]) -> keras.Model:
    return keras.Model(*_nested(model, inputs, outputs), name=model.name)


def _nested(model: keras.Model, inputs: list[Any], outputs: list[Any]) -> tuple[Any, Any]:
    return pack(nesting(model, "inputs"), inputs), pack(nesting(model, "outputs"), outputs)


def _chain(model: keras.Model, made: keras.Model) -> list[Any]:
    """Returns the layers of a model for a Sequential one."""
    nodes = nodes_in_order(made)
    tensors = [made.inputs[0], *(node.output_tensors[0] for node in nodes)]
    follow = list(zip(nodes, tensors, strict=False))
    one = all(len(node.input_tensors) == 1 for node in nodes)
    layers = all(isinstance(node.operation, keras.Layer) for node in nodes)
    if not (one and layers and all(node.input_tensors[0] is t for node, t in follow)):
        raise AmcError(
            f"{type(model).__name__} is a Sequential model with a {own_steps(model)[0]} of its "
            "own, but its small model is no chain of layers; derive the class from keras.Model "
            "and call it with inputs and outputs"
        )
    return [made_by(made.inputs[0]), *(node.operation for node in nodes)]


# --- the graph of calls -------------------------------------------------------------------------


def is_functional(operation: Any) -> bool:
    """Returns whether an operation is a model whose calls can be visited (and inlined)."""
    if not isinstance(operation, (Functional, keras.Sequential)):
        return False
    if isinstance(operation, keras.Sequential):
        own_call = type(operation).call is not keras.Sequential.call
        return operation.built and bool(operation.outputs) and not own_call
    # A subclass that overrides call() may compute something other than its graph.
    return type(operation).call is Functional.call


def nodes_in_order(model: Any) -> list[Any]:
    """Returns the nodes between a model's inputs and outputs in topological order, depth first."""
    ready = {id(t) for t in model.inputs}
    order: list[Any] = []
    done: set[int] = set()
    stack = [(_node_of(t), False) for t in reversed(model.outputs) if id(t) not in ready]
    while stack:
        node, expanded = stack.pop()
        if id(node) in done:
            continue
        if expanded:
            done.add(id(node))
            order.append(node)
            continue
        stack.append((node, True))
        for tensor in reversed(node.input_tensors):
            if id(tensor) not in ready:
                parent = _node_of(tensor)
                if id(parent) not in done:
                    stack.append((parent, False))
    return order


def _node_of(tensor: Any) -> Any:
    return made_by(tensor)._inbound_nodes[tensor._keras_history.node_index]


def made_by(tensor: keras.KerasTensor) -> Any:
    """Returns the operation whose call returned a symbolic tensor."""
    return tensor._keras_history.operation


def twin(operation: Any) -> Any:
    """Makes a copy of an operation without weights, for use in another model.

    The copy shares everything but the record of its calls. If it shared that too, the dense
    model would keep every model alive that was ever built from it.
    """
    # Not `copy`, for which Keras saves and loads the operation; not setattr, which TensorFlow
    # tracks.
    other = object.__new__(type(operation))
    vars(other).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
    return other


def infer(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Calls an operation in inference mode.

    Layers that augment images run in training mode by default.
    """
    mode = {"training": False} if _can_train(type(operation)) else {}
    return operation(*args, **{**kwargs, **mode})


@functools.cache
def _can_train(kind: type) -> bool:
    return issubclass(kind, keras.Layer) and "training" in inspect.signature(kind.call).parameters


@contextlib.contextmanager
def unrecorded(layer: keras.Layer) -> Iterator[None]:
    """Opens a context after which the calls in it of a layer's layers are forgotten.

    Keras records every call of a layer on symbolic tensors; its layers go on in their own model.
    """
    counts = [
        (calls, len(calls))
        for part in layer._flatten_layers()
        for calls in (part._inbound_nodes, part._outbound_nodes)
    ]
    try:
        yield
    finally:
        for calls, count in counts:
            del calls[count:]


_OF_WEIGHTS = {
    "__add__": keras.ops.add,
    "__sub__": keras.ops.subtract,
    "__mul__": keras.ops.multiply,
    "__truediv__": keras.ops.divide,
    "__matmul__": keras.ops.matmul,
}


@contextlib.contextmanager
def weights_take_symbols() -> Iterator[None]:
    """Opens a context in which `weight * symbolic tensor` is an operation of a model's.

    Keras has that for `symbolic tensor * weight` only.
    """
    old = {name: getattr(keras.Variable, name) for name in _OF_WEIGHTS}

    def routed(name: str) -> Callable[[Any, Any], Any]:
        def operator(weight: Any, other: Any) -> Any:
            symbolic = isinstance(other, keras.KerasTensor)
            return _OF_WEIGHTS[name](weight, other) if symbolic else old[name](weight, other)

        return operator

    try:
        for name in old:
            setattr(keras.Variable, name, routed(name))
        yield
    finally:
        for name, operator in old.items():
            setattr(keras.Variable, name, operator)
