"""Channels of an activation brought to similar ranges, without a change of what is computed.

A quantised activation has one scale for all its channels, so that one large channel takes the steps
of all others. Where what makes an activation and what reads it are linear, and ReLUs or pooling lie
between, a channel can be multiplied by a factor in the one and divided by it in the other (Nagel et
al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section
4.1). As the ranges of kernels have a scale for each output channel, here it is the activation, as
it is on data, that is balanced against the kernels that read it. Factors are powers of 2, so that
every product and every sum stays the same but for its exponent.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from amc_tf.errors import AmcError
from amc_tf.graph.analysis import analyze
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.network import Call, Network
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.verification import outputs_of, relative_difference
from amc_tf.pruning.weights import named_weight, numpy_of

_DEPTHWISE = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
_WITH_KERNEL = (kl.Conv1D, kl.Conv2D, kl.Conv3D, kl.Dense, *_DEPTHWISE)
_POOLED = ("MaxPooling", "AveragePooling", "GlobalMaxPooling", "GlobalAveragePooling")
_MOVED = ("ZeroPadding", "Cropping", "UpSampling")
# f(a x) = a f(x) for a > 0, in each channel alone.
_HOMOGENEOUS: Mapping[type, Callable[[Any], bool]] = {
    kl.ReLU: lambda layer: layer.max_value is None and not layer.threshold,
    kl.LeakyReLU: lambda layer: True,
    kl.PReLU: lambda layer: True,
    kl.Activation: lambda layer: layer.activation in _RECTIFIERS,
    **{
        getattr(kl, f"{name}{rank}D"): lambda layer: True
        for name in (*_POOLED, *_MOVED)
        for rank in (1, 2, 3)
    },
    **{getattr(kl, f"SpatialDropout{rank}D"): lambda layer: True for rank in (1, 2, 3)},
    kl.Dropout: lambda layer: True,
}
_RECTIFIERS = (keras.activations.linear, keras.activations.relu)
_MOST = 20  # greatest exponent of a factor
_TOLERANCE = 1e-5  # of the largest output; kernels of other sizes may sum in another order


@dataclasses.dataclass(frozen=True, eq=False)
class _Link:
    """An activation between what makes it and what reads it.

    Attributes:
        producer: the call that makes it.
        consumers: the calls whose kernels read it.
    """

    producer: Call
    consumers: tuple[Call, ...]


def equalize(
    model: keras.Model, inputs: Sequence[np.ndarray], graph: ChannelGraph | None = None
) -> keras.Model:
    """Balances the ranges of activations' channels against those of the kernels that read them.

    Args:
        model: a functional or Sequential model.
        inputs: an array of shape (N, ...) for each of the model's inputs, on which the ranges of
            activations are measured; a few dozen samples suffice.
        graph: `analyze(model)`, if it is at hand.

    Returns:
        A new model that computes the same; `model` itself if there is nothing to balance.

    Raises:
        AmcError: the new model computes something else, by its outputs on `inputs`.
    """
    graph = graph or analyze(model)
    links = list(_links(graph.network))
    if not links:
        return model
    made = {id(link.producer): link for link in links}
    largest = _ranges(graph.network, made, inputs)
    factors: dict[str, np.ndarray] = {}
    for link in links:
        exponents = _exponents(link, largest[id(link.producer)])
        _scale(graph.network, link, 2.0**exponents, factors)
    if all((value == 1.0).all() for value in factors.values()):
        return model
    weights = {}
    for operation in graph.network.operations():
        for weight in operation.weights if isinstance(operation, kl.Layer) else ():
            key = f"{graph.network.name(operation)}/{weight.name}"
            if key in factors:
                value = numpy_of(weight)
                weights[key] = (value * factors[key]).astype(value.dtype)
    balanced = rebuild(model, graph, None, weights)
    _require_same(model, balanced, inputs)
    return balanced


def _links(network: Network) -> Iterator[_Link]:
    times = Counter(id(call.operation) for call in network.calls)
    for call in network.calls:
        if times[id(call.operation)] == 1 and _produces(call.operation):
            consumers = _consumers(network, call.outputs[0])
            if consumers and all(times[id(c.operation)] == 1 for c in consumers):
                yield _Link(call, tuple(consumers))


def _consumers(network: Network, number: int) -> list[Call] | None:
    """Returns the kernels that read a value; None if something else does."""
    if number in network.outputs or not network.readers(number):
        return None
    found: list[Call] = []
    for call in network.readers(number):
        operation = call.operation
        if _reads(operation):
            found.append(call)
        elif _is_homogeneous(operation) and len(call.outputs) == 1:
            behind = _consumers(network, call.outputs[0])
            if behind is None:
                return None
            found += behind
        else:
            return None
    return found


def _is_last(operation: Any) -> bool:
    return getattr(operation, "data_format", None) in (None, "channels_last")


def _is_homogeneous(operation: Any) -> bool:
    test = _HOMOGENEOUS.get(type(operation))
    return test is not None and test(operation) and _is_last(operation)


def _reads(operation: Any) -> bool:
    return (
        type(operation) in _WITH_KERNEL
        and getattr(operation, "groups", 1) == 1
        and _is_last(operation)
    )


def _produces(operation: Any) -> bool:
    if type(operation) is kl.BatchNormalization:
        last = (-1, operation.input_spec.ndim - 1)
        return operation.scale and operation.axis in last
    if type(operation) in _DEPTHWISE and operation.depth_multiplier != 1:
        return False
    return (
        type(operation) in _WITH_KERNEL
        and getattr(operation, "activation", None) in _RECTIFIERS
        and _is_last(operation)
    )


def _ranges(
    network: Network, links: Mapping[int, _Link], inputs: Sequence[np.ndarray]
) -> Mapping[int, np.ndarray]:
    """Measures the largest absolute value of each channel of the links' activations."""
    largest: dict[int, np.ndarray] = {}

    def invoke(call: Call, args: tuple, kwargs: dict) -> Any:
        made = infer(call.operation, args, kwargs)
        if id(call) in links:
            values = np.abs(keras.ops.convert_to_numpy(made))
            largest[id(call)] = values.reshape(-1, values.shape[-1]).max(axis=0)
        return made

    tensors = zip(inputs, network.model.inputs, strict=True)
    network.run([keras.ops.convert_to_tensor(a, t.dtype) for a, t in tensors], invoke)
    return largest


def _exponents(link: _Link, largest: np.ndarray) -> np.ndarray:
    """Returns the powers of 2 by which the channels of an activation are multiplied."""
    mixing = [c for c in link.consumers if type(c.operation) not in _DEPTHWISE]
    # A depthwise kernel has a scale for each channel, so that the activation alone counts.
    read = np.zeros_like(largest) if mixing else 1.0 / np.maximum(largest, 1e-30)
    for call in mixing:
        kernel = np.abs(numpy_of(named_weight(call.operation, "kernel")))
        other = tuple(i for i in range(kernel.ndim) if i != kernel.ndim - 2)
        read = np.maximum(read, kernel.max(axis=other))
    live = (largest > 0) & (read > 0)
    found = np.zeros(len(largest))
    if live.any():
        wanted = 0.5 * (np.log2(read[live]) - np.log2(largest[live]))
        found[live] = np.round(wanted - np.median(wanted))
    return np.clip(found, -_MOST, _MOST)


def _scale(network: Network, link: _Link, scale: np.ndarray, factors: dict) -> None:
    """Multiplies the weights that make an activation, and divides those that read it."""
    maker = link.producer.operation
    names = ("gamma", "beta") if type(maker) is kl.BatchNormalization else ("kernel", "bias")
    for weight in maker.weights:
        if weight.name in names:
            shaped = scale.reshape(-1, 1) if _is_depthwise_kernel(maker, weight) else scale
            key = f"{network.name(maker)}/{weight.name}"
            factors[key] = factors.get(key, 1.0) * np.broadcast_to(shaped, weight.shape)
    for call in link.consumers:
        weight = named_weight(call.operation, "kernel")
        key = f"{network.name(call.operation)}/{weight.name}"
        divided = np.broadcast_to(1.0 / scale.reshape(-1, 1), weight.shape)
        factors[key] = factors.get(key, 1.0) * divided


def _is_depthwise_kernel(layer: Any, weight: Any) -> bool:
    return type(layer) in _DEPTHWISE and weight.name == "kernel"


def _require_same(model: keras.Model, balanced: keras.Model, inputs: Sequence[np.ndarray]) -> None:
    few = [a[:8] for a in inputs]
    expected, received = outputs_of(model, few), outputs_of(balanced, few)
    worst = max(relative_difference(a, b) for a, b in zip(expected, received, strict=True))
    if worst > _TOLERANCE:
        raise AmcError(
            f"the equalised model's outputs differ by {worst:.2g} of the largest; expected at most "
            f"{_TOLERANCE:g}. Please report this model, and leave equalisation out"
        )
