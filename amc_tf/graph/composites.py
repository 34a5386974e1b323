"""Layers that are made of layers or operations, looked into.

A block written as a class is one opaque call of a network. Its `call` is run on symbolic tensors,
which gives the calls it is made of; they take its place. Weights that the block itself reads (a
scale of channels, learnt positions) become layers (`amc_tf.graph.parameter`). The calls are run
beside the block on random inputs. Where they do not compute the same, or are not all that the block
does (`amc_tf.graph.inside_checks`), it stays as it is.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from amc_tf.errors import first_line
from amc_tf.graph.inside import Closed, Inside, Step, given, is_array, is_symbol
from amc_tf.graph.inside_checks import check_inside, unread_weights
from amc_tf.graph.keras_structure import (
    Functional,
    carries_mask,
    in_training,
    nodes_in_order,
    nothing_returned,
    numpy_ops,
    reads_of_weights,
    symbolic_weights,
    unrecorded,
)
from amc_tf.graph.output_specs import is_unspecified, tensors_of
from amc_tf.graph.parameter import Parameter

# A user's row of the layer table is kept on the user's class, so that the two stay together.
RULE_ATTRIBUTE = "_amc_tf_layer_rule"
# Batches that are found again in the sizes of operations, as multiples of a prime that few layers
# are as wide as; the second can be divided by numbers of windows. Tensors that code makes for the
# batch (masks, grids) are real ones, so the batch is no larger than it need be.
_PRIME, _WINDOWS = 1009, (36, 16, 4)
_MOST_BYTES = 2**29  # of an input at the larger batch
_REPEATS = (numpy_ops.Tile, numpy_ops.BroadcastTo, numpy_ops.Repeat)


def _at_each_step(layer: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    """Calls the layer of a TimeDistributed once for the steps of all samples, as a larger batch.

    A batch norm in it then takes the statistics of all steps in training, where the wrapper takes
    those of one step after the other.
    """
    if mask is not None:
        raise Closed("it reads a mask")
    if any(size is None for size in inputs.shape[1:]):
        raise Closed("its input has open sizes")
    told = {} if training is None or not _takes_training(layer.layer) else {"training": training}
    each = layer.layer(keras.ops.reshape(inputs, (-1, *inputs.shape[2:])), **told)
    if any(size is None for size in each.shape[1:]):
        raise Closed("its output has open sizes")
    return keras.ops.reshape(each, (-1, inputs.shape[1], *each.shape[1:]))


def _takes_training(layer: Any) -> bool:
    return "training" in inspect.signature(type(layer).call).parameters


# What is run in the place of a layer's own `call`, where that loops.
_CALLS: Mapping[type, Callable[..., Any]] = {keras.layers.TimeDistributed: _at_each_step}
# Layers of Keras that only call others, and classes of Keras from which blocks are derived. What
# derives from a layer that computes, such as a convolution, changes what that layer computes.
_OF_KERAS = (
    keras.layers.Bidirectional,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    *_CALLS,
)
_BASES = (keras.Layer, keras.Model, keras.Sequential, Functional)


def is_composite(operation: Any) -> bool:
    """Returns whether an operation is a layer to be looked into: of a class of the user's.

    A class that the user registered is taken as its row says.
    """
    kind = type(operation)
    if kind in _OF_KERAS or not isinstance(operation, keras.Layer):
        return kind in _OF_KERAS
    of_keras = next(base for base in kind.__mro__ if base.__module__.split(".")[0] == "keras")
    own = kind is not of_keras and not kind.__module__.startswith("amc_tf.")
    return own and of_keras in _BASES and RULE_ATTRIBUTE not in vars(kind)


def look_into(layer: Any, args: tuple, kwargs: dict[str, Any]) -> Inside:
    """Finds the calls that a layer is made of.

    Args:
        layer: a built layer.
        args: positional arguments of its call, with a `KerasTensor` in the place of each tensor.
        kwargs: keyword arguments, likewise.

    Raises:
        Closed: its calls cannot be seen, or are not all that it does.
    """
    if any(carries_mask(x) for x in keras.tree.flatten((args, kwargs))):
        raise Closed("it reads a mask that comes with what it reads, as from Embedding(mask_zero)")
    reason = Closed()
    for batch in _batches(args, kwargs):
        try:
            return _looked_into(layer, args, kwargs, batch)
        except Closed as closed:
            reason = closed
    raise reason


def _batches(args: tuple, kwargs: dict[str, Any]) -> list[int | None]:
    """Returns the batches to try: the open one; then numbers, for code that computes with it."""
    tensors = [x for x in keras.tree.flatten((args, kwargs)) if is_symbol(x)]
    if all(x.shape[0] is not None for x in tensors):
        return [None]
    largest = max((math.prod(size or 1 for size in x.shape[1:]) for x in tensors), default=0)
    several = [_PRIME * windows for windows in _WINDOWS]
    return [None, _PRIME, *(n for n in several if 4 * largest * n <= _MOST_BYTES)]


def _looked_into(layer: Any, args: tuple, kwargs: dict[str, Any], batch: int | None) -> Inside:
    told: dict[str, Any] = {}
    if _takes_training(layer):
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        told = {"training": True}
    with unrecorded(layer):
        with in_training(layer):
            training = _called(layer, args, {**kwargs, **told}, batch)
        kwargs = {**kwargs, **dict.fromkeys(told)}
        inside = _called(layer, args, kwargs, batch)
    check_inside(layer, args, kwargs, inside, training)
    return dataclasses.replace(inside, unread=unread_weights(layer, inside))


def _called(layer: Any, args: tuple, kwargs: dict[str, Any], batch: int | None) -> Inside:
    inputs: list[Any] = []

    def fresh(x: Any) -> Any:
        if not is_symbol(x):
            return x
        marked = batch is not None and x.shape[0] is None
        shape = (batch, *x.shape[1:]) if marked else x.shape
        inputs.append(keras.KerasTensor(shape, x.dtype, name=x.name))
        return inputs[-1]

    args, kwargs = keras.tree.map_structure(fresh, (args, kwargs))
    with (
        symbolic_weights(layer, constants=batch is not None) as weights,
        keras.StatelessScope(),  # weights that the call changes stay as they are
        reads_of_weights() as read_early,
        nothing_returned(),
    ):
        try:
            call = _CALLS.get(type(layer), type(layer).call)
            outputs = tensors_of(call(layer, *args, **kwargs))
        except Closed:
            raise
        except Exception as error:
            raise Closed(
                f"its call does not take symbolic tensors ({first_line(error)})"
            ) from error
    if read_early:
        raise Closed(f"it computes with the values of its weight {read_early[0].path!r}")
    if not all(is_symbol(x) or is_array(x) for x in outputs):
        raise Closed("it returns something other than tensors")
    outputs = [x if is_symbol(x) else None for x in outputs]
    sources = [*inputs, *(symbol for symbol, _ in weights)]
    try:
        nodes = nodes_in_order(_Ends(sources, list(filter(is_symbol, outputs))))
    except AttributeError as error:  # a tensor that no call of the layer's made
        raise Closed("it uses tensors from elsewhere") from error
    if any(map(is_unspecified, nodes)):
        raise Closed("its attention is masked, and its values have another width than its keys")
    read = {id(x) for x in outputs} | {id(x) for node in nodes for x in given(node)}
    of_symbol = {id(symbol): (symbol, weight) for symbol, weight in weights if id(symbol) in read}
    steps, parameters = nodes, []
    if batch is not None:
        steps, parameters = _for_any_batch(layer, nodes, of_symbol, batch)
        read = {id(x) for x in outputs} | {id(x) for step in steps for x in given(step)}
    parameters += [
        (symbol, Parameter.sharing(weight, layer))
        for symbol, weight in of_symbol.values()
        if id(symbol) in read
    ]
    return Inside(inputs, parameters, steps, outputs, marked=batch is not None)


@dataclasses.dataclass(frozen=True, eq=False)
class _Ends:
    inputs: Sequence[Any]
    outputs: Sequence[Any]


def _for_any_batch(
    layer: Any, nodes: Sequence[Any], weights: Mapping[int, tuple[Any, Any]], batch: int
) -> tuple[list[Any], list[tuple[Any, Parameter]]]:
    """Rewrites calls whose sizes hold that of the batch, for any batch.

    Returns:
        The calls, and the weights that are repeated for each sample, as parameters.
    """
    steps, parameters = [], []
    for node in nodes:
        operation, arguments = node.operation, given(node)
        if type(operation) in _REPEATS and id(arguments[0]) in weights:
            symbol, weight = weights[id(arguments[0])]
            if node.outputs[0].shape == (batch, *symbol.shape[1:]) and symbol.shape[0] == 1:
                repeated = Parameter.sharing(weight, layer, each_sample=True)
                parameters.append((node.outputs[0], repeated))
                continue
        if type(operation) is numpy_ops.Reshape:
            sizes = node.outputs[0].shape
            newshape = [-1 if size % _PRIME == 0 else size for size in sizes]
            if newshape.count(-1) == 1:
                operation = numpy_ops.Reshape(tuple(newshape), name=operation.name)
        own = [] if isinstance(operation, keras.Layer) else list(vars(operation).values())
        if any(map(_is_marked, keras.tree.flatten([own, arguments]))):
            raise Closed("it computes with the size of the batch")
        steps.append(Step(operation, node.arguments, node.outputs))
    return steps, parameters


def _is_marked(x: Any) -> bool:
    if isinstance(x, int):
        return x != 0 and x % _PRIME == 0
    if is_symbol(x) or isinstance(x, keras.Variable):
        return False
    return any(size and size % _PRIME == 0 for size in getattr(x, "shape", ()))
