"""Which numbers the values of a network may be, as far as its layers tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import activations
from keras import layers as kl

from amc_tf.graph.activations import is_linear
from amc_tf.graph.keras_structure import nn_ops, numpy_ops
from amc_tf.graph.layer_kinds import RECTIFIED, UNBOUNDED, Bounds
from amc_tf.graph.layer_table import bounds_of, is_registered
from amc_tf.graph.network import Call, Network

Combine = Callable[[Sequence[Bounds]], Bounds]


def _hull(given: Sequence[Bounds]) -> Bounds:
    return min(low for low, _ in given), max(high for _, high in given)


def _with_zero(given: Sequence[Bounds]) -> Bounds:
    return _hull([*given, (0.0, 0.0)])


def _sum(given: Sequence[Bounds]) -> Bounds:
    return sum(low for low, _ in given), sum(high for _, high in given)


def _layers(names: str) -> list[type]:
    return [getattr(kl, name) for name in names.split() if hasattr(kl, name)]


# Outputs of these lie in the range that is made of those of the inputs.
_COMBINED: Mapping[type, Combine] = {
    **dict.fromkeys(
        _layers(
            "Identity Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D "
            "MaxPooling1D MaxPooling2D MaxPooling3D "
            "AveragePooling1D AveragePooling2D AveragePooling3D "
            "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D "
            "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
            "Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D "
            "Flatten Reshape Permute Concatenate Maximum Minimum Average"
        ),
        _hull,
    ),
    **dict.fromkeys(_layers("ZeroPadding1D ZeroPadding2D ZeroPadding3D"), _with_zero),
    kl.Add: _sum,
    numpy_ops.Add: _sum,
    numpy_ops.GetItem: _hull,
    numpy_ops.Concatenate: _hull,
}
# These return what is not negative as it is; each does something of its own to the rest.
_HOLD_POSITIVE = frozenset(
    {activations.leaky_relu, activations.elu, kl.LeakyReLU, kl.ELU, nn_ops.LeakyRelu, nn_ops.Elu}
)


def ranges(network: Network) -> dict[int, Bounds]:
    """Returns the range of every value of a network, in inference mode."""
    found = dict.fromkeys(network.inputs, UNBOUNDED)
    for call in network.calls:
        bounds = _range(call, [found[number] for number in call.inputs])
        found.update(dict.fromkeys(call.outputs, bounds))
    return found


def _range(call: Call, given: Sequence[Bounds]) -> Bounds:
    operation = call.operation
    clips = bounds_of(operation)
    if clips == UNBOUNDED:
        clips = bounds_of(getattr(operation, "activation", None))
    if clips != UNBOUNDED:
        return clips
    combine = _COMBINED.get(type(operation))
    constant = len(given) < 2 and combine is _sum
    if combine is None or constant or not given or is_registered(operation):
        return UNBOUNDED
    return combine(given)


def held(operation: Any) -> Bounds | None:
    """Returns the range of the numbers that an activation returns as they are.

    Args:
        operation: a layer or operation, or the function that is a layer's activation.

    Returns:
        The range; None if it is none of the activations that are known to hold any.
    """
    if is_linear(operation) or type(operation) is kl.Identity:
        return UNBOUNDED
    if type(operation) is kl.Activation:
        return held(operation.activation)
    clips = bounds_of(operation)
    if clips != UNBOUNDED:
        return clips
    holds = any(known in (operation, type(operation)) for known in _HOLD_POSITIVE)
    return RECTIFIED if holds else None
