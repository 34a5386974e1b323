"""The one table of operations whose channels are understood.

For each class the table says how channel ids pass through a call, which axes
of its weights they index, which configuration keys hold its widths, and where
its multiply-accumulates are spent (`amc_tf.graph.layer_rule.LayerRule`). Graph analysis,
surgery, costs and refit read the same row, so that a new layer is one more row
and nothing else. Classes are matched exactly, never by inheritance: a subclass
may compute anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras import layers as kl
from keras.src.applications import convnext, inception_resnet_v2

from amc_tf.errors import AmcError
from amc_tf.graph import kernel_propagation, propagation, rewrites
from amc_tf.graph.keras_structure import image_ops, nn_ops, numpy_ops
from amc_tf.graph.layer_rule import LayerRule, positions, volume
from amc_tf.graph.network import Call

Shape = tuple[int | None, ...]

_OUT = {"bias": ("out",)}
_DENSE = LayerRule(
    kernel_propagation.mixer,
    weights={"kernel": ("in", "out"), **_OUT},
    widths={"units": "out"},
    mixes={"kernel": "in"},
    macs={"kernel": "out"},
)
# A grouped kernel's input axis holds the channels of one group. Dropping the same positions of
# every group leaves the groups as they are; dropping whole groups ties inputs to outputs.
_WITHIN_GROUPS = LayerRule(
    kernel_propagation.within_groups,
    weights={"kernel": ("part", "out"), **_OUT},
    widths={"filters": "out"},
    mixes={"kernel": "part"},
    macs={"kernel": "out"},
)
_WHOLE_GROUPS = LayerRule(
    kernel_propagation.whole_groups,
    weights={"kernel": (None, "out"), **_OUT},
    widths={"filters": "out", "groups": "block"},
    macs={"kernel": "out"},
)


def _by_groups(layer: Any) -> LayerRule:
    """The way of pruning a convolution that leaves more choices."""
    if layer.groups == 1:
        return _PLAIN_CONV
    inside = layer.kernel.shape[-2]
    return _WHOLE_GROUPS if layer.groups >= inside else _WITHIN_GROUPS


_PLAIN_CONV = dataclasses.replace(_DENSE, widths={"filters": "out"})
_CONV = dataclasses.replace(_PLAIN_CONV, variant=_by_groups)
_CONV_TRANSPOSE = dataclasses.replace(
    _PLAIN_CONV, weights={"kernel": ("out", "in"), **_OUT}, macs={"kernel": "in"}
)
_DEPTHWISE = LayerRule(
    kernel_propagation.depthwise, weights={"kernel": ("in", None), **_OUT}, macs={"kernel": "out"}
)
_SEPARABLE = LayerRule(
    kernel_propagation.separable,
    weights={"depthwise_kernel": ("in", None), "pointwise_kernel": ("mid", "out"), **_OUT},
    widths={"filters": "out"},
    mixes={"pointwise_kernel": "mid"},
    macs={"depthwise_kernel": "out", "pointwise_kernel": "out"},
)
_SCALE = {"gamma": ("in",), "beta": ("in",)}
_BATCH_NORM = LayerRule(
    propagation.batch_norm,
    weights={
        **_SCALE,
        "moving_mean": ("in",),
        "moving_variance": ("in",),
        "moving_stddev": ("in",),
        "renorm_mean": ("in",),
        "renorm_stddev": ("in",),
    },
)
_SAME = LayerRule(propagation.same)
_MERGE = LayerRule(propagation.merge)
_STATISTICS = LayerRule(propagation.channel_statistics)


# --- layers that are known and never pruned: what they cost -----------------------------------


def _einsum_macs(call: Call, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Every input element meets every element of the kernel's other axes."""
    layer = call.operation
    x, kernel = layer.equation.replace(" ", "").split("->")[0].split(",")
    sizes = zip(kernel, layer.kernel.shape, strict=True)
    others = math.prod(size for letter, size in sizes if letter not in x)
    count = volume(inputs[0][1:])
    return None if count is None else count * others


def _attention_macs(call: Call, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Projections of query, key, value and output, and the two products of the attention."""
    layer = call.operation
    query, value = inputs[0], inputs[1] if len(inputs) > 1 else inputs[0]
    targets, sources = positions(query), positions(value)
    if targets is None or sources is None:
        return None
    heads = layer.num_heads
    across = heads * (layer.key_dim + layer.value_dim)
    on_target = query[-1] * heads * layer.key_dim + heads * layer.value_dim * output[-1]
    key = inputs[2] if len(inputs) > 2 else value
    on_source = heads * (key[-1] * layer.key_dim + value[-1] * layer.value_dim)
    return targets * on_target + sources * on_source + targets * sources * across


def _recurrent_macs(call: Call, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Kernel and recurrent kernel, once for every time step."""
    steps = inputs[0][1]
    matrices = [w.shape for w in call.operation.weights if w.name.endswith("kernel")]
    return None if steps is None else steps * sum(math.prod(shape) for shape in matrices)


# Its output's size is often left open, its input's not.
_EINSUM_DENSE = dataclasses.replace(_DENSE, widths={"output_shape": "out"}, macs={"kernel": "in"})
_EINSUM_OTHER = LayerRule(
    propagation.refused("its equation is not that of a Dense layer"), fixed_macs=_einsum_macs
)
_EINSUM = dataclasses.replace(
    _EINSUM_DENSE,
    variant=lambda layer: _EINSUM_DENSE if kernel_propagation.is_dense(layer) else _EINSUM_OTHER,
)
_ATTENTION = LayerRule(
    propagation.refused("attention mixes its channels with its positions"),
    fixed_macs=_attention_macs,
)
_RECURRENT = LayerRule(
    propagation.refused("a recurrent layer feeds its channels back to itself"),
    fixed_macs=_recurrent_macs,
)
_MIXES_COLOURS = LayerRule(propagation.refused("it mixes colours"))
_LAMBDA = LayerRule(
    propagation.refused(
        "a Lambda may compute anything; write it with keras.ops, or as a layer that is taught to "
        "amc_tf.register_layer"
    )
)

# --- the table ----------------------------------------------------------------------------------

_ROWS: tuple[tuple[LayerRule, Any, str], ...] = (
    (_CONV, kl, "Conv1D Conv2D Conv3D"),
    (_CONV_TRANSPOSE, kl, "Conv1DTranspose Conv2DTranspose Conv3DTranspose"),
    (_DENSE, kl, "Dense"),
    (_EINSUM, kl, "EinsumDense"),
    (_DEPTHWISE, kl, "DepthwiseConv1D DepthwiseConv2D"),
    (_SEPARABLE, kl, "SeparableConv1D SeparableConv2D"),
    (_BATCH_NORM, kl, "BatchNormalization"),
    (
        LayerRule(propagation.group_norm, weights=_SCALE, widths={"groups": "block"}),
        kl,
        "GroupNormalization",
    ),
    (_STATISTICS, kl, "LayerNormalization RMSNormalization UnitNormalization"),
    (LayerRule(propagation.prelu, weights={"alpha": ("in",)}), kl, "PReLU"),
    (LayerRule(propagation.activation), kl, "Activation"),
    (LayerRule(propagation.softmax), kl, "Softmax"),
    (LayerRule(propagation.rescaling), kl, "Rescaling"),
    (
        LayerRule(propagation.normalization, weights={"mean": ("in",), "variance": ("in",)}),
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
        "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D "
        "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D "
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D "
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
        "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D "
        "UpSampling1D UpSampling2D UpSampling3D RepeatVector Resizing CenterCrop "
        "RandomFlip RandomCrop RandomTranslation RandomRotation RandomZoom RandomShear "
        "RandomPerspective RandomElasticTransform RandomGaussianBlur RandomErasing "
        "RandomBrightness RandomContrast RandomInvert RandomPosterization Solarization",
    ),
    (
        _MIXES_COLOURS,
        kl,
        "RandomColorDegeneration RandomColorJitter RandomGrayscale RandomHue RandomSaturation "
        "RandomSharpness AutoContrast Equalization AugMix RandAugment CutMix MixUp "
        "ContrastLimitedAdaptiveHistogramEqualization",
    ),
    (_MERGE, kl, "Add Subtract Multiply Average Maximum Minimum"),
    # Layers of keras.applications' own.
    (_MERGE, inception_resnet_v2, "CustomScaleLayer"),
    (
        LayerRule(propagation.same, weights={"gamma": ("in",)}, widths={"projection_dim": "in"}),
        convnext,
        "LayerScale",
    ),
    (_SAME, convnext, "StochasticDepth"),
    (LayerRule(propagation.concatenate), kl, "Concatenate"),
    (LayerRule(propagation.flatten), kl, "Flatten"),
    (LayerRule(propagation.reshape, rewrite=rewrites.rewrite_reshape), kl, "Reshape"),
    (LayerRule(propagation.permute), kl, "Permute"),
    (_ATTENTION, kl, "MultiHeadAttention"),
    (_RECURRENT, kl, "LSTM GRU SimpleRNN Bidirectional"),
    (_LAMBDA, kl, "Lambda"),
    (
        _MERGE,
        numpy_ops,
        "Add Subtract Multiply Divide TrueDivide DivideNoNan Maximum Minimum Power",
    ),
    (
        _SAME,
        nn_ops,
        "Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus "
        "LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh "
        "HardShrink Threshold MaxPool AveragePool AdaptiveAveragePool AdaptiveMaxPool",
    ),
    (LayerRule(propagation.softmax), nn_ops, "Softmax LogSoftmax"),
    (
        _SAME,
        numpy_ops,
        "Tanh Exp Expm1 Log Log1p Negative Abs Absolute Square Sqrt Reciprocal Sign Sin Cos Floor "
        "Ceil Round Clip Copy",
    ),
    (_SAME, image_ops, "Resize"),
    (LayerRule(propagation.concatenate), numpy_ops, "Concatenate"),
    (LayerRule(propagation.stack), numpy_ops, "Stack"),
    (LayerRule(propagation.split, rewrite=rewrites.rewrite_split), numpy_ops, "Split"),
    (LayerRule(propagation.reduce), numpy_ops, "Mean Max Min Sum"),
    (LayerRule(propagation.get_item, rewrite=rewrites.rewrite_get_item), numpy_ops, "GetItem"),
    (LayerRule(propagation.pad, rewrite=rewrites.rewrite_pad), numpy_ops, "Pad"),
    (
        LayerRule(propagation.reshape, rewrite=rewrites.rewrite_reshape_op),
        numpy_ops,
        "Reshape",
    ),
    (LayerRule(propagation.squeeze), numpy_ops, "Squeeze"),
    (LayerRule(propagation.expand_dims), numpy_ops, "ExpandDims"),
    (LayerRule(propagation.transpose), numpy_ops, "Transpose"),
)

TABLE: Mapping[type, LayerRule] = {
    getattr(module, name): rule
    for rule, module, names in _ROWS
    for name in names.split()
    # Some operations are newer than the oldest Keras that is supported.
    if hasattr(module, name)
}

# A user's row is kept on the user's class, so that it goes where the class goes.
_ATTRIBUTE = "_amc_tf_layer_rule"


def rule_of(operation: Any) -> LayerRule | None:
    """The row for an operation (its owner's, then the table's), or None if there is none."""
    kind = type(operation)
    rule = vars(kind).get(_ATTRIBUTE) or TABLE.get(kind)
    return rule.variant(operation) if rule is not None and rule.variant is not None else rule


def register_layer(
    layer_class: type,
    like: type | None = None,
    rule: LayerRule | None = None,
    **changes: Any,
) -> type:
    """Teaches the graph analysis a layer class of yours.

    What the row says is your promise; `amc_tf.verify` checks it on a model.

        class ChannelScale(keras.layers.Layer):
            ...  # y = x * self.scale, with one scale for each channel

        amc_tf.register_layer(ChannelScale, like=keras.layers.ReLU, weights={"scale": ("in",)})

    Args:
        layer_class: the class; its subclasses are not meant by it.
        like: a class of the table whose channels pass in the same way and
            whose weights and configuration keys have the same names:
            `keras.layers.ReLU` for one that treats each channel alone,
            `keras.layers.Dense` for one that mixes them, and so on.
        rule: a row of your own, in place of `like`.
        **changes: fields of `LayerRule` that differ from it, such as
            `weights={"scale": ("in",)}`.

    Returns:
        The class.

    Raises:
        AmcError: not exactly one of `like` and `rule` is given, `like` has no
            row, or a change names no field.
    """
    if not isinstance(layer_class, type):
        raise AmcError(f"expected a layer class, received {layer_class!r}")
    if (like is None) == (rule is None):
        raise AmcError("give either like=, a class that passes channels alike, or rule=")
    row = rule if like is None else TABLE.get(like)
    if row is None:
        raise AmcError(
            f"{getattr(like, '__name__', like)} is not in the layer table; choose a class whose "
            "channels pass in the same way, such as keras.layers.ReLU or keras.layers.Dense"
        )
    try:
        row = dataclasses.replace(row, **changes)
    except TypeError as error:
        fields = ", ".join(f.name for f in dataclasses.fields(LayerRule))
        raise AmcError(f"{error}; a row has the fields {fields}") from None
    setattr(layer_class, _ATTRIBUTE, row)
    return layer_class
