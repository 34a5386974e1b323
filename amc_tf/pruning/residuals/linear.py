"""Layers that compute something linear at every position, and a shortcut as one such map."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from keras import layers as kl

from amc_tf.graph.activations import is_linear
from amc_tf.graph.keras_structure import numpy_ops
from amc_tf.graph.layer_rule import Refusal
from amc_tf.graph.layer_table import is_registered, kind_of
from amc_tf.graph.network import Call, Network
from amc_tf.graph.rewrites import pad_width, split_key
from amc_tf.pruning.residuals import images
from amc_tf.pruning.residuals.blocks import Block, Unfoldable
from amc_tf.pruning.weights import named_weight, numpy_of

NORM_WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")


def mixes(operation: Any) -> bool:
    """Returns whether an operation sums over channels by a kernel (..., inputs, outputs)."""
    product = kind_of(operation).product
    return (
        product is not None
        and product.reads in ("positions", "windows")
        and not is_registered(operation)
        and getattr(operation, "data_format", "channels_last") == "channels_last"
    )


def is_norm(operation: Any) -> bool:
    """Returns whether an operation is a plain batch norm of the last axis."""
    return (
        kind_of(operation).batch_norm
        and not is_registered(operation)
        and {w.name for w in operation.weights} <= set(NORM_WEIGHTS)
        and operation.axis in (-1, operation.input_spec.ndim - 1)
    )


def kernel_sizes(layer: Any) -> tuple[int, ...]:
    """Returns the spatial sizes of a layer's kernel; none for a Dense layer."""
    return tuple(layer.kernel.shape[:-2])


def value_of(layer: Any, name: str, default: float, size: int) -> np.ndarray:
    """Returns a vector among a layer's weights; the default where it has none of that name."""
    if any(weight.name == name for weight in layer.weights):
        return numpy_of(named_weight(layer, name)).astype(np.float64)
    return np.full(size, default)


def scale_and_offset(norm: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a batch norm multiplies `size` channels by at inference, and then adds."""
    gamma, beta, mean, variance = (
        value_of(norm, name, default, size)
        for name, default in zip(NORM_WEIGHTS, (1.0, 0.0, 0.0, 1.0), strict=True)
    )
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale


@dataclasses.dataclass(frozen=True, eq=False)
class Shortcut:
    """What a block adds to its branch: x @ matrix + offset, x being some positions of its input.

    Attributes:
        maps: which positions (see `amc_tf.pruning.residuals.images`).
        matrix: (channels of the input, channels of the sum).
        offset: (channels of the sum,).
    """

    maps: images.Maps
    matrix: np.ndarray
    offset: np.ndarray


def shortcut_of(network: Network, block: Block) -> Shortcut:
    """Returns the linear map that a block's shortcut computes.

    Raises:
        Unfoldable: a call of it is not linear, or reads several positions at once.
    """
    shape = network.tensors[block.fork].shape
    found = Shortcut(images.whole(shape), np.eye(shape[-1]), np.zeros(shape[-1]))
    for call in block.shortcut:
        found = _followed(network, call, found)
    return found


def _followed(network: Network, call: Call, found: Shortcut) -> Shortcut:
    operation = call.operation
    shape = network.tensors[call.inputs[0]].shape
    maps, matrix, offset = found.maps, found.matrix, found.offset
    if type(operation) is kl.Identity or (
        type(operation) is kl.Activation and is_linear(operation.activation)
    ):
        return found
    if mixes(operation) and is_linear(operation.activation):
        sizes = kernel_sizes(operation)
        if any(size != 1 for size in sizes):
            raise Unfoldable(f"its shortcut reads several positions in {network.told(operation)}")
        kernel = numpy_of(operation.kernel).astype(np.float64).reshape(matrix.shape[1], -1)
        bias = value_of(operation, "bias", 0.0, kernel.shape[1])
        maps, _ = images.through_kernel(maps, operation, sizes, shape)
        return Shortcut(maps, matrix @ kernel, offset @ kernel + bias)
    if is_norm(operation):
        scale, shift = scale_and_offset(operation, len(offset))
        return Shortcut(maps, matrix * scale, offset * scale + shift)
    if type(operation) is numpy_ops.GetItem:
        return _sliced(network, call, found)
    if type(operation) is numpy_ops.Pad and operation.mode == "constant":
        return _widened(network, call, found)
    raise Unfoldable(
        f"its shortcut has {network.told(operation)}, which is no linear map of single positions"
    )


def _sliced(network: Network, call: Call, found: Shortcut) -> Shortcut:
    shape = network.tensors[call.inputs[0]].shape
    refused = Unfoldable(
        f"its shortcut has an index that is not followed in {network.told(call.operation)}"
    )
    try:
        (batch, *spatial), channels = split_key(call, len(shape))
    except Refusal:
        raise refused from None
    if batch != slice(None) or not all(isinstance(k, slice) for k in (*spatial, channels)):
        raise refused
    if None in shape[1:] and any(k != slice(None) for k in spatial):
        raise Unfoldable("the network's input has open sizes, and its shortcut slices them")
    maps = [m[key] for m, key in zip(found.maps, spatial, strict=True)]
    return Shortcut(maps, found.matrix[:, channels], found.offset[channels])


def _widened(network: Network, call: Call, found: Shortcut) -> Shortcut:
    *others, width = pad_width(call.operation, len(network.tensors[call.inputs[0]].shape))
    value = call.kwargs.get("constant_values", call.args[1] if len(call.args) > 1 else None)
    if any(any(pair) for pair in others) or value not in (None, 0, 0.0):
        raise Unfoldable(f"its shortcut is padded by {network.told(call.operation)}")
    return Shortcut(found.maps, np.pad(found.matrix, ((0, 0), width)), np.pad(found.offset, width))
