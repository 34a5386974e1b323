"""Which activations treat every channel alone, and which of them are linear or clip."""

from __future__ import annotations

from typing import Any

import keras
from keras import activations
from keras import layers as kl

from amc_tf.graph.layer_kinds import RECTIFIED, UNBOUNDED, Bounds


@keras.saving.register_keras_serializable(package="amc_tf")
def keras2_hard_sigmoid(x: Any) -> Any:
    """Computes Keras 2's `hard_sigmoid`: 0.2 x + 0.5, clipped; Keras 3's has the slope 1/6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


ELEMENTWISE_ACTIVATIONS = frozenset(
    getattr(activations, name)
    for name in [
        "relu",
        "leaky_relu",
        "relu6",
        "celu",
        "elu",
        "selu",
        "softplus",
        "softsign",
        "squareplus",
        "soft_shrink",
        "sparse_plus",
        "silu",
        "gelu",
        "tanh",
        "tanh_shrink",
        "threshold",
        "sigmoid",
        "exponential",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "hard_shrink",
        "linear",
        "mish",
        "log_sigmoid",
        "sparse_sigmoid",
    ]
    if hasattr(activations, name)
) | {keras2_hard_sigmoid}

ELEMENTWISE_LAYERS = frozenset({kl.ReLU, kl.LeakyReLU, kl.ELU})
_CLIPS = ((activations.relu, RECTIFIED), (activations.relu6, (0.0, 6.0)))


def is_elementwise(activation: Any) -> bool:
    """Returns whether an activation treats every channel alone (softmax, for one, does not)."""
    if activation is None or type(activation) in ELEMENTWISE_LAYERS:
        return True
    try:
        return activation in ELEMENTWISE_ACTIVATIONS
    except TypeError:  # unhashable callables
        return False


def may_hold_weights(activation: Any) -> bool:
    """Returns whether an activation is a layer with weights, or one that may yet make some."""
    if not isinstance(activation, keras.Layer) or type(activation) in ELEMENTWISE_LAYERS:
        return False
    return bool(activation.weights) or not activation.built


def is_linear(activation: Any) -> bool:
    """Returns whether an activation returns its input."""
    return activation is None or activation is activations.linear


def keeps_zero(activation: Any) -> bool:
    """Returns whether an activation returns 0 for 0."""
    if is_linear(activation):
        return True
    if not callable(activation) or may_hold_weights(activation):
        return False
    return not keras.ops.any(activation(keras.ops.zeros((1, 2))))


def clipped(activation: Any) -> Bounds:
    """Returns the range to which an activation clips; all numbers if it is no rectifier."""
    return next((bounds for rectifier, bounds in _CLIPS if rectifier is activation), UNBOUNDED)


def activation_name(activation: Any) -> str:
    """Returns an activation's name, for messages."""
    return getattr(activation, "__name__", type(activation).__name__)
