"""The one table of operations whose channels are understood.

For each class the table says how channel ids pass through a call, which axes
of its weights they index, which configuration keys hold its widths, and where
its multiply-accumulates are spent. Graph analysis, surgery, costs and refit
read the same row, so that a new layer is one more row and nothing else.

A *role* names a vector of channel ids of one call: `in` (positions of the
input's last axis), `out` (of the output's) and, for separable convolutions,
`mid` (between the two kernels). Classes are matched exactly, never by
inheritance: a subclass may compute anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
from keras import activations
from keras import layers as kl
from keras.src.ops import nn as nn_ops
from keras.src.ops import numpy as numpy_ops

from amc_tf.network import Call, Value

Ids = np.ndarray
Roles = dict[str, Ids]


class Refusal(Exception):
    """Why a call cannot be pruned through; its channels are frozen."""


@dataclasses.dataclass(frozen=True)
class Signal:
    """A value's channel ids, one for each position of its last axis, and its shape."""

    ids: Ids
    shape: tuple[int | None, ...]


class Connector(Protocol):
    """What a rule may do to channel ids (implemented by the analysis)."""

    def fresh(self, count: int) -> Ids:
        """New ids, tied to nothing."""
        ...

    def unite(self, a: Ids, b: Ids) -> None:
        """Position by position, `a` and `b` live or die together."""
        ...

    def freeze(self, ids: Ids, reason: str) -> None:
        """Channels that must stay."""
        ...


Connect = Callable[[Connector, Call, Sequence[Signal], tuple[int | None, ...]], Roles]
# (call, kept positions of each role as boolean vectors, rank of the input) -> what the rebuilt
# model calls in the operation's place.
Rewrite = Callable[[Call, Mapping[str, np.ndarray], int], Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """A row of the table.

    Attributes:
        connect: ids of each role of a call; raises `Refusal`.
        weights: weight name to the roles of its *last* axes (None: never sliced).
        widths: configuration key to the role whose width it holds.
        mixes: weight name to the role whose channels it sums over: the rows
            that are zeroed for a masked model and refitted by least squares.
        macs: weight name to `out` or `in`: each element of the weight is
            multiplied once for every position (all axes but batch and
            channels) of that side.
        rewrite: for operations without widths whose arguments name positions.
    """

    connect: Connect
    weights: Mapping[str, tuple[str | None, ...]] = dataclasses.field(default_factory=dict)
    widths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mixes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    macs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rewrite: Rewrite | None = None

    def weight_axes(self, operation: Any) -> Iterator[tuple[Any, tuple[str | None, ...]]]:
        """Every weight of an operation with the role of each of its axes (None: fixed size)."""
        for weight in getattr(operation, "weights", ()):
            roles = self.weights.get(weight.name, ())
            yield weight, (None,) * (len(weight.shape) - len(roles)) + tuple(roles)


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
)
ELEMENTWISE_LAYERS = frozenset({kl.ReLU, kl.LeakyReLU, kl.ELU})


def is_elementwise(activation: Any) -> bool:
    """Whether an activation treats every channel alone (softmax, for one, does not)."""
    if activation is None or type(activation) in ELEMENTWISE_LAYERS:
        return True
    try:
        return activation in ELEMENTWISE_ACTIVATIONS
    except TypeError:  # unhashable callables
        return False


def positions(shape: Sequence[int | None]) -> int | None:
    """Positions of a batched tensor beside its channel axis; None if not fixed."""
    inner = shape[1:-1]
    return None if any(d is None for d in inner) else math.prod(d for d in inner if d is not None)


def _activation_name(activation: Any) -> str:
    return getattr(activation, "__name__", type(activation).__name__)


def _check_activation(c: Connector, operation: Any, out: Ids) -> None:
    activation = getattr(operation, "activation", None)
    if not is_elementwise(activation):
        c.freeze(
            out,
            f"activation {_activation_name(activation)!r} of {operation.name!r} mixes channels",
        )


# --- how ids pass through a call -----------------------------------------------------------


def _mixer(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Convolutions and Dense: every output channel reads every input channel."""
    layer, (x,) = call.operation, inputs
    if getattr(layer, "groups", 1) != 1:
        raise Refusal(f"a grouped convolution (groups={layer.groups})")
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Refusal("its kernel is quantised or carries LoRA weights")
    out = c.fresh(out_shape[-1])
    _check_activation(c, layer, out)
    return {"in": x.ids, "out": out}


def _depthwise(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    (x,) = inputs
    # Keras lays the multiplier innermost: output channel i*multiplier+j reads input channel i.
    out = np.repeat(x.ids, call.operation.depth_multiplier)
    _check_activation(c, call.operation, out)
    return {"in": x.ids, "out": out}


def _separable(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    (x,) = inputs
    out = c.fresh(out_shape[-1])
    _check_activation(c, call.operation, out)
    return {"in": x.ids, "mid": np.repeat(x.ids, call.operation.depth_multiplier), "out": out}


def _same(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Every channel alone, positions of the channel axis unchanged."""
    (x,) = inputs
    if out_shape[-1] != len(x.ids):
        raise Refusal("it changes the channel axis")
    return {"in": x.ids, "out": x.ids}


def _activation(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    activation = call.operation.activation
    if activation in (activations.softmax, activations.log_softmax):
        return _softmax(c, call, inputs, out_shape)
    if not is_elementwise(activation):
        name = _activation_name(activation)
        raise Refusal(f"activation {name!r} is not known to treat each channel alone")
    return _same(c, call, inputs, out_shape)


def _softmax(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Each output depends on all channels: they stay, and stay what they are."""
    c.freeze(inputs[0].ids, f"softmax {call.operation.name!r} mixes channels")
    return _same(c, call, inputs, out_shape)


def _normalization(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    layer = call.operation
    if layer.axis not in ((-1,), (len(out_shape) - 1,)):
        raise Refusal(f"it normalises axes {layer.axis}, not the last one alone")
    if layer.input_mean is not None:
        # Its statistics sit in its configuration, where no weight can be sliced.
        c.freeze(inputs[0].ids, f"the mean and variance of {layer.name!r} are fixed by its maker")
    return _same(c, call, inputs, out_shape)


def _batch_norm(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    axis = call.operation.axis
    if axis not in (-1, len(out_shape) - 1):
        raise Refusal(f"it normalises axis {axis}, not the last one")
    return _same(c, call, inputs, out_shape)


def _prelu(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    if len(out_shape) - 1 in (call.operation.shared_axes or ()):
        raise Refusal("its slopes are shared over the channel axis")
    return _same(c, call, inputs, out_shape)


def _rescaling(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    layer = call.operation
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        raise Refusal("its scale or offset differs from channel to channel")
    return _same(c, call, inputs, out_shape)


def _merge(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Elementwise operation of several tensors, broadcasting as numpy does."""
    for argument in (*call.args, *call.kwargs.values()):
        several = isinstance(argument, (list, tuple)) and all(
            isinstance(a, Value) for a in argument
        )
        if not (several or isinstance(argument, Value) or np.ndim(argument) == 0):
            raise Refusal("one of its operands is a constant array")
    width = out_shape[-1]
    wide = [x for x in inputs if len(x.ids) == width]
    for x in inputs:
        if len(x.ids) != width:
            # One map that scales every channel (spatial attention): it must stay as it is.
            c.freeze(x.ids, f"broadcast over all channels by {call.operation.name!r}")
    for x in wide[1:]:
        c.unite(wide[0].ids, x.ids)
    return {"in": wide[0].ids, "out": wide[0].ids}


def _concatenate(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    if call.operation.axis in (-1, len(out_shape) - 1):
        ids = np.concatenate([x.ids for x in inputs])
        return {"in": ids, "out": ids}
    for x in inputs[1:]:
        c.unite(inputs[0].ids, x.ids)
    return {"in": inputs[0].ids, "out": inputs[0].ids}


def _reduce(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    rank = len(inputs[0].shape)
    axis = call.operation.axis
    axes = [axis] if isinstance(axis, int) else axis
    if axes is None or any(a % rank in (0, rank - 1) for a in axes):
        raise Refusal("it reduces the batch or the channel axis")
    return _same(c, call, inputs, out_shape)


def _reshape(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Allowed: rows of the result hold whole channel vectors, one or several of them.

    Memory order is row-major, so a last axis of k times the channels holds the
    channels of k neighbouring positions one after another (Flatten is the
    case where k is every position).
    """
    (x,) = inputs
    repeats, rest = divmod(out_shape[-1], len(x.ids))
    if rest:
        raise Refusal(
            f"it reshapes {x.shape} to {tuple(out_shape)}, which cuts the channel axis up"
        )
    return {"in": x.ids, "out": np.tile(x.ids, repeats)}


def _permute(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    if call.operation.dims[-1] != len(out_shape) - 1:
        raise Refusal("it moves the channel axis")
    return _same(c, call, inputs, out_shape)


def _get_item(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    (x,) = inputs
    channel_key = _split_key(call, len(x.shape))[1]
    if not isinstance(channel_key, slice) or channel_key.step not in (None, 1):
        raise Refusal(f"it takes channels by {channel_key!r}, not by a contiguous slice")
    return {"in": x.ids, "out": x.ids[channel_key]}


def _split_key(call: Call, rank: int) -> tuple[list, Any]:
    """The key of a slice, spelled out for `rank` axes: (all axes but channels, channels)."""
    key = call.args[1] if len(call.args) > 1 else call.kwargs["key"]
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(isinstance(k, Value) or np.ndim(k) for k in key if k is not Ellipsis):
        raise Refusal("its index is a tensor or an array")
    used = sum(k is not None and k is not Ellipsis for k in key)
    missing = [slice(None)] * (rank - used)
    at = next((i for i, k in enumerate(key) if k is Ellipsis), None)
    key = key + missing if at is None else key[:at] + missing + key[at + 1 :]
    if key[-1] is None:
        raise Refusal("it adds an axis behind the channels")
    return key[:-1], key[-1]


def _rewrite_get_item(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    before, channels = _split_key(call, rank)
    start, stop, _ = channels.indices(len(kept["in"]))
    low, high = (int(np.count_nonzero(kept["in"][:end])) for end in (start, stop))
    return lambda x, *_, **__: x[(*before, slice(low, high))]


def _pad(c: Connector, call: Call, inputs: Sequence[Signal], out_shape) -> Roles:
    """Channels added by zero padding (ResNet's parameter-free shortcut) are channels too."""
    (x,) = inputs
    operation = call.operation
    before, after = _pad_width(operation, len(x.shape))[-1]
    if operation.mode != "constant" and (before or after):
        raise Refusal(f"it pads the channel axis with mode {operation.mode!r}")
    return {"in": x.ids, "out": np.concatenate([c.fresh(before), x.ids, c.fresh(after)])}


def _pad_width(operation: Any, rank: int) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in np.broadcast_to(operation.pad_width, (rank, 2))]


def _rewrite_pad(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    operation = call.operation
    width = _pad_width(operation, rank)
    before, after = width[-1]
    out = kept["out"]
    width[-1] = (
        int(np.count_nonzero(out[:before])),
        int(np.count_nonzero(out[len(out) - after :])),
    )
    return lambda x, *_, **kwargs: keras.ops.pad(x, width, mode=operation.mode, **kwargs)


def _rewrite_reshape(call: Call, kept: Mapping[str, np.ndarray], rank: int) -> Callable[..., Any]:
    layer = call.operation
    target = (*layer.target_shape[:-1], int(np.count_nonzero(kept["out"])))
    return kl.Reshape(target, name=layer.name, dtype=layer.dtype_policy)


def _rewrite_reshape_op(
    call: Call, kept: Mapping[str, np.ndarray], rank: int
) -> Callable[..., Any]:
    target = (*call.operation.newshape[:-1], int(np.count_nonzero(kept["out"])))
    return lambda x, *_, **__: keras.ops.reshape(x, target)


# --- the table -----------------------------------------------------------------------------

_OUT = {"bias": ("out",)}
_CONV = LayerRule(
    _mixer,
    weights={"kernel": ("in", "out"), **_OUT},
    widths={"filters": "out"},
    mixes={"kernel": "in"},
    macs={"kernel": "out"},
)
_CONV_TRANSPOSE = dataclasses.replace(
    _CONV, weights={"kernel": ("out", "in"), **_OUT}, macs={"kernel": "in"}
)
_DENSE = dataclasses.replace(_CONV, widths={"units": "out"})
_DEPTHWISE = LayerRule(_depthwise, weights={"kernel": ("in", None), **_OUT}, macs={"kernel": "out"})
_SEPARABLE = LayerRule(
    _separable,
    weights={"depthwise_kernel": ("in", None), "pointwise_kernel": ("mid", "out"), **_OUT},
    widths={"filters": "out"},
    mixes={"pointwise_kernel": "mid"},
    macs={"depthwise_kernel": "out", "pointwise_kernel": "out"},
)
_BATCH_NORM = LayerRule(
    _batch_norm,
    weights={
        name: ("in",)
        for name in [
            "gamma",
            "beta",
            "moving_mean",
            "moving_variance",
            "moving_stddev",
            "renorm_mean",
            "renorm_stddev",
        ]
    },
)
_SAME = LayerRule(_same)
_MERGE = LayerRule(_merge)
_REDUCE = LayerRule(_reduce)

_ROWS: tuple[tuple[LayerRule, Any, str], ...] = (
    (_CONV, kl, "Conv1D Conv2D Conv3D"),
    (_CONV_TRANSPOSE, kl, "Conv1DTranspose Conv2DTranspose Conv3DTranspose"),
    (_DENSE, kl, "Dense"),
    (_DEPTHWISE, kl, "DepthwiseConv1D DepthwiseConv2D"),
    (_SEPARABLE, kl, "SeparableConv1D SeparableConv2D"),
    (_BATCH_NORM, kl, "BatchNormalization"),
    (LayerRule(_prelu, weights={"alpha": ("in",)}), kl, "PReLU"),
    (LayerRule(_activation), kl, "Activation"),
    (LayerRule(_softmax), kl, "Softmax"),
    (LayerRule(_rescaling), kl, "Rescaling"),
    (
        LayerRule(_normalization, weights={"mean": ("in",), "variance": ("in",)}),
        kl,
        "Normalization",
    ),
    (
        _SAME,
        kl,
        "ReLU LeakyReLU ELU Identity ActivityRegularization "
        "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D AlphaDropout "
        "GaussianDropout GaussianNoise "
        "MaxPooling1D MaxPooling2D MaxPooling3D "
        "AveragePooling1D AveragePooling2D AveragePooling3D "
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D "
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
        "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D "
        "UpSampling1D UpSampling2D UpSampling3D RepeatVector",
    ),
    (_MERGE, kl, "Add Subtract Multiply Average Maximum Minimum"),
    (LayerRule(_concatenate), kl, "Concatenate"),
    (LayerRule(_reshape), kl, "Flatten"),
    (LayerRule(_reshape, rewrite=_rewrite_reshape), kl, "Reshape"),
    (LayerRule(_permute), kl, "Permute"),
    (_MERGE, numpy_ops, "Add Subtract Multiply Divide TrueDivide Maximum Minimum"),
    (
        _SAME,
        nn_ops,
        "Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus "
        "LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh "
        "HardShrink Threshold MaxPool AveragePool",
    ),
    (LayerRule(_softmax), nn_ops, "Softmax LogSoftmax"),
    (_SAME, numpy_ops, "Tanh Exp Negative Absolute Square Sqrt Clip"),
    (LayerRule(_concatenate), numpy_ops, "Concatenate"),
    (_REDUCE, numpy_ops, "Mean Max Min Sum"),
    (LayerRule(_get_item, rewrite=_rewrite_get_item), numpy_ops, "GetItem"),
    (LayerRule(_pad, rewrite=_rewrite_pad), numpy_ops, "Pad"),
    (LayerRule(_reshape, rewrite=_rewrite_reshape_op), numpy_ops, "Reshape"),
)

TABLE: Mapping[type, LayerRule] = {
    getattr(module, name): rule
    for rule, module, names in _ROWS
    for name in names.split()
    # Some operations are newer than the oldest Keras that is supported.
    if hasattr(module, name)
}


def rule_of(operation: Any) -> LayerRule | None:
    """The table's row for an operation, or None if its class is not listed."""
    return TABLE.get(type(operation))
