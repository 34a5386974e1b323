"""How Keras models are built up, including what is private to Keras.

Private names of Keras are read here (and in `amc_tf.graph.layer_table`, which needs some classes),
so that a new release of Keras needs changes in few places.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.activations import activations as activation_ops
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.models.functional import Functional
from keras.src.ops import core as core_ops
from keras.src.ops import image as image_ops
from keras.src.ops import nn as nn_ops
from keras.src.ops import numpy as numpy_ops
from keras.src.ops.node import Node

from amc_tf.errors import AmcError
from amc_tf.graph.own_classes import adopt, own_steps

__all__ = [
    "Functional",
    "activation_ops",
    "carries_mask",
    "core_ops",
    "image_ops",
    "in_training",
    "infer",
    "is_functional",
    "like",
    "made_by",
    "nesting",
    "nn_ops",
    "nodes_in_order",
    "nothing_returned",
    "numpy_ops",
    "pack",
    "plain",
    "reads_of_weights",
    "symbolic_weights",
    "twin",
    "uncompiled",
    "unrecorded",
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


def twin(operation: Any, name: str | None = None) -> Any:
    """Makes a copy of an operation without weights, for use in another model.

    Args:
        operation: the operation.
        name: name of the copy; None for the same.

    The copy shares everything but the record of its calls. If it shared that too, the dense
    model would keep every model alive that was ever built from it.
    """
    # Not `copy`, for which Keras saves and loads the operation; not setattr, which TensorFlow
    # tracks.
    other = object.__new__(type(operation))
    named = {} if name is None else {"name": name}
    vars(other).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[], **named)
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


def carries_mask(x: Any) -> bool:
    """Returns whether a symbolic tensor carries a mask, which Keras passes on beside it."""
    return getattr(x, "_keras_mask", None) is not None


@contextlib.contextmanager
def nothing_returned() -> Iterator[None]:
    """Opens a context in which Keras records calls that return None beside symbolic tensors."""
    inherited: Any = Node.__init__

    def init(node: Any, operation: Any, call_args: Any, call_kwargs: Any, outputs: Any) -> None:
        made = [x for x in keras.tree.flatten(outputs) if x is not None]
        inherited(node, operation, call_args, call_kwargs, made)

    Node.__init__ = init  # type: ignore
    try:
        yield
    finally:
        Node.__init__ = inherited


_TRACKED = frozenset(("_trainable_variables", "_non_trainable_variables"))


@contextlib.contextmanager
def symbolic_weights(layer: keras.Layer, constants: bool) -> Iterator[list[tuple[Any, Any]]]:
    """Opens a context in which the weights that a layer itself holds are symbolic tensors.

    In a `call` on symbolic tensors, operations of such weights alone would be computed at once, and
    the weight would be lost in what they return.

    Args:
        layer: the layer.
        constants: whether tensors that it holds become symbolic, too, as of weights that are not
            trained: a layer of its own may read them, such as an embedding of positions.

    Yields:
        The symbolic tensors, each with its weight. They have at least two axes, as
        `amc_tf.graph.parameter` gives them, and no axis of a batch.
    """
    symbols: dict[int, tuple[Any, Any]] = {}

    def is_replaced(value: Any) -> bool:
        return isinstance(value, keras.Variable) or (constants and tf.is_tensor(value))

    def symbol(value: Any) -> Any:
        if not is_replaced(value):
            return value
        if id(value) not in symbols:
            weight = value
            if not isinstance(value, keras.Variable):
                dtype = keras.backend.standardize_dtype(value.dtype)
                weight = keras.Variable(value, dtype=dtype, trainable=False, name="constant")
            shape = (1,) * (2 - len(weight.shape)) + tuple(weight.shape)
            is_float = keras.backend.is_float_dtype(weight.dtype)
            dtype = layer.compute_dtype if is_float else weight.dtype
            symbols[id(value)] = keras.KerasTensor(shape, dtype, name=weight.name), weight
        return symbols[id(value)][0]

    held = {
        name: value
        for name, value in vars(layer).items()
        if name not in _TRACKED and any(map(is_replaced, keras.tree.flatten(value)))
    }
    found: list[tuple[Any, Any]] = []
    try:
        for name, value in held.items():
            # Not setattr, which Keras tracks.
            vars(layer)[name] = keras.tree.map_structure(symbol, value)
        found.extend(symbols.values())
        yield found
    finally:
        vars(layer).update(held)


@contextlib.contextmanager
def reads_of_weights() -> Iterator[list[Any]]:
    """Opens a context, within a `StatelessScope`, in which the reading of weights is noted.

    Yields:
        The variables whose values were read, but for what Keras reads in scopes of its own to find
        the shapes of symbolic tensors.
    """
    kind, scope = keras.Variable, get_stateless_scope()
    read: list[Any] = []
    inherited: Any = kind.value

    def value(variable: Any) -> Any:
        if get_stateless_scope() is scope:
            read.append(variable)
        return inherited.fget(variable)

    own = vars(kind).get("value")
    kind.value = property(value)  # type: ignore
    try:
        yield read
    finally:
        if own is None:
            del kind.value
        else:
            kind.value = own


@contextlib.contextmanager
def in_training(layer: keras.Layer) -> Iterator[None]:
    """Opens a context in which calls of layers are, as if in a call of `layer` that trains it."""
    context = layer._get_call_context()
    before = context.get_value("training")
    context.set_value("training", True)
    try:
        yield
    finally:
        context.set_value("training", before)
        layer._maybe_reset_call_context()
