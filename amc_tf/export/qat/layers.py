"""The rounding of each kind of Keras 2 layer in quantisation-aware training."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from amc_tf.export.qat.kernels import KernelQuantizer
from amc_tf.export.qat.tfmot import (
    quantize_aware_activation,
    quantize_config,
    quantize_layer,
    quantize_wrapper,
    quantizers,
    registry,
)

_L = tf_keras.layers
# Layers with a kernel: the attribute that holds it, and how it is rounded.
_KERNELS: dict[type, tuple[str, KernelQuantizer]] = {
    _L.Conv1D: ("kernel", KernelQuantizer(per_channel=False)),
    _L.Conv2D: ("kernel", KernelQuantizer()),
    _L.DepthwiseConv2D: ("depthwise_kernel", KernelQuantizer(depthwise=True)),
    _L.Conv2DTranspose: ("kernel", KernelQuantizer(per_channel=False)),
    # One scale for the whole matrix: the converter refuses fake quantisation along its columns.
    _L.Dense: ("kernel", KernelQuantizer(per_channel=False)),
}
# Their int8 operators give the output the scale of the input, so there is nothing to round.
_NO_ROUNDING = (
    *(_L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.GaussianNoise, _L.GaussianDropout),
    *(_L.ActivityRegularization, _L.Flatten, _L.Reshape, _L.Permute, _L.RepeatVector),
    *(_L.Cropping1D, _L.Cropping2D, _L.ZeroPadding1D, _L.ZeroPadding2D),
    *(_L.MaxPooling1D, _L.MaxPooling2D, _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D),
    *(_L.UpSampling1D,),
)
# LiteRT fixes the scale of their int8 outputs (1/256, or 1/128 for tanh).
_FIXED_RANGE = frozenset({"softmax", "sigmoid", "tanh"})
_OUTPUT_ROUNDED = (
    *(_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum, _L.Concatenate),
    *(_L.AveragePooling1D, _L.AveragePooling2D, _L.UpSampling2D),
    *(_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.BatchNormalization),
    *(_L.ReLU, _L.LeakyReLU, _L.PReLU, _L.ELU, _L.Activation),
)
# Each becomes two operators, with rounding between them and after them.
_TWO_STEPS: dict[type, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    _L.Rescaling: (lambda layer, x: x * layer.scale, lambda layer, x: x + layer.offset),
    _L.Normalization: (
        lambda layer, x: x - layer.mean,
        lambda layer, x: x / tf.maximum(tf.sqrt(layer.variance), tf_keras.backend.epsilon()),
    ),
}
# Functions between layers (TFOpLambda) whose int8 operators compute, by the name of the function;
# below them, those that only move values.
_FUNCTIONS_ROUNDED = frozenset(
    "add subtract multiply divide add_v2 truediv mean reduce_mean reduce_sum maximum minimum relu "
    "relu6 concat".split()
)
_FUNCTIONS_MOVING = frozenset(
    "reshape transpose pad squeeze expand_dims strided_slice identity split stack cast".split()
)
_FUSED_BEFORE_NORM = (_L.Conv2D, _L.DepthwiseConv2D, _L.Conv1D, _L.Dense, _L.Conv2DTranspose)
_FUSED_BEFORE_RELU = (*_FUSED_BEFORE_NORM, _L.Add, _L.BatchNormalization)


# Range of a dead activation, as a part of the widest.
_DEAD = 0.01


class Ranges:
    """The common state of the quantizers of all activations of a network."""

    def __init__(self) -> None:
        self._state = "train"
        self._ends: list[tuple[Any, Any]] = []

    def add(self, low: Any, high: Any) -> None:
        """Makes the ends of the range of an activation, two variables, known."""
        self._ends.append((low, high))

    def open_dead(self) -> None:
        """Opens the ranges of layers that are dead, from which the file would get no scale.

        See `tflite_tools.ranges`. How wide it is does not matter for values that are all 0; a part
        of the widest range of the network keeps the factor of LiteRT's kernels in bounds.
        """
        widest = max((float(high - low) for low, high in self._ends), default=0.0)
        for low, high in self._ends:
            if float(high - low) <= 0.0:
                high.assign(tf.fill(high.shape, _DEAD * widest))

    @property
    def state(self) -> str:
        """`train`: round, follow the values; `observe`: widen, do not round; `ignore`: neither."""
        return self._state

    @contextlib.contextmanager
    def _set(self, state: str) -> Iterator[None]:
        self._state, before = state, self._state
        try:
            yield
        finally:
            self._state = before

    def observed(self) -> contextlib.AbstractContextManager[None]:
        """Opens a context in which calls widen the ranges to their values and do not round."""
        return self._set("observe")

    def ignored(self) -> contextlib.AbstractContextManager[None]:
        """Opens a context in which calls neither change the ranges nor round."""
        return self._set("ignore")


class _ActivationQuantizer(quantizers.MovingAverageQuantizer):
    """TFMOT's moving average, which starts from an observed range."""

    def __init__(self, ranges: Ranges):
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        self._ranges = ranges

    def build(self, tensor_shape, name, layer):
        weights = super().build(tensor_shape, name, layer)
        for weight in weights.values():
            weight.assign(tf.zeros_like(weight))
        self._ranges.add(weights["min_var"], weights["max_var"])
        return weights

    def __call__(self, inputs, training, weights, **kwargs):
        low, high = weights["min_var"], weights["max_var"]
        if self._ranges.state == "observe":
            low.assign(tf.minimum(low, tf.reduce_min(inputs)))
            high.assign(tf.maximum(high, tf.reduce_max(inputs)))
        if self._ranges.state != "train":
            return inputs
        return super().__call__(inputs, training, weights, **kwargs)


class _OutputConfig(quantize_config.QuantizeConfig):
    """A configuration that rounds a layer's output and nothing else."""

    def __init__(self, quantizer: _ActivationQuantizer | None):
        self._quantizers = [] if quantizer is None else [quantizer]

    def get_weights_and_quantizers(self, layer):
        return []

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        pass

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return self._quantizers

    def get_config(self):
        return {}


def input_quantizer(name: str, ranges: Ranges) -> Any:
    """Makes a layer that rounds a float tensor, such as an input of the network."""
    return quantize_layer.QuantizeLayer(_ActivationQuantizer(ranges), name=name)


def is_fused(operations: Sequence[Any], reader: Any) -> bool:
    """Tells whether the converter makes one operator of a call and the reader of its output.

    Args:
        operations: the operation of the call, then the operation that makes its only input, if that
            is known.
        reader: the operation that reads the call's output.
    """
    first = operations[0]
    if not _is_linear(first):
        return False
    if type(reader) is _L.BatchNormalization:
        return type(first) in _FUSED_BEFORE_NORM
    is_relu = type(reader) is _L.ReLU or _activation(reader) in ("relu", "relu6")
    if type(first) is _L.BatchNormalization:
        return is_relu and len(operations) > 1 and type(operations[1]) in _FUSED_BEFORE_NORM
    return is_relu and type(first) in _FUSED_BEFORE_RELU


def quantised_call(
    operation: Any, name: str, args: tuple, kwargs: dict, followed: bool, ranges: Ranges
) -> Callable[[tuple, dict], Any] | None:
    """Makes a function that computes what a call does, rounded as its int8 operator rounds.

    Args:
        operation: a built Keras 2 layer, called once in the network.
        name: a unique name.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        followed: whether the next operation is fused with this one, so that the output is not
            rounded.
        ranges: the state of the activations' quantizers.

    Returns:
        `f(args, kwargs)`, or None if the call stays float.
    """
    kind = type(operation)
    if kind in _KERNELS:
        return _with_kernel(operation, followed, ranges)
    if kind in _NO_ROUNDING:
        return lambda args, kwargs: operation(*args, **kwargs)
    if kind in _OUTPUT_ROUNDED and not kwargs and len(args) == 1:
        fixed = followed or _activation(operation) in _FIXED_RANGE
        return _wrapped(operation, _OutputConfig(None if fixed else _ActivationQuantizer(ranges)))
    if kind in _TWO_STEPS:
        steps = [
            (step, input_quantizer(f"{name}_rounding_{number}", ranges))
            for number, step in enumerate(_TWO_STEPS[kind])
        ]
        return lambda args, kwargs: functools.reduce(
            lambda x, step: step[1](step[0](operation, x)), steps, args[0]
        )
    symbol = _symbol(operation)
    if symbol in _FUNCTIONS_MOVING:
        return lambda args, kwargs: operation(*args, **kwargs)
    if symbol in _FUNCTIONS_ROUNDED:
        rounding = input_quantizer(f"{name}_rounding", ranges)
        return lambda args, kwargs: rounding(operation(*args, **kwargs))
    return None


def _with_kernel(layer: Any, followed: bool, ranges: Ranges) -> Callable[[tuple, dict], Any]:
    attribute, kernel = _KERNELS[type(layer)]
    config = registry.Default8BitQuantizeConfig([attribute], ["activation"], False)
    config.weight_quantizer = kernel
    config.activation_quantizer = _ActivationQuantizer(ranges)
    activation, rest = _activation(layer), None
    if followed:
        layer.activation = quantize_aware_activation.NoOpActivation()
    elif activation not in ("linear", "relu"):
        # TFMOT rounds before and after some activations and refuses the others. As a layer of its
        # own, each is rounded like the operator that it becomes.
        rest = _L.Activation(layer.activation, name=f"{layer.name}_activation")
        layer.activation = tf_keras.activations.linear
    call = _wrapped(layer, config)
    if rest is None:
        return call
    after = _wrapped(
        rest,
        _OutputConfig(None if activation in _FIXED_RANGE else _ActivationQuantizer(ranges)),
    )
    return lambda args, kwargs: after((call(args, kwargs),), {})


def _wrapped(layer: Any, config: Any) -> Callable[[tuple, dict], Any]:
    wrapper = quantize_wrapper.QuantizeWrapperV2(layer, config, name_prefix="")
    return lambda args, kwargs: wrapper(*args, **kwargs)


def _activation(layer: Any) -> str | None:
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", None)


def _is_linear(layer: Any) -> bool:
    return _activation(layer) in (None, "linear")


def _symbol(operation: Any) -> str:
    if type(operation).__name__ == "SlicingOpLambda":
        return "strided_slice"
    function = getattr(operation, "function", None)
    return getattr(function, "__name__", "")
