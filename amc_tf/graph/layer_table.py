"""The table of operations whose channels are understood.

For each class the table says how channel ids pass through a call, which axes
of its weights they index, which configuration keys hold its widths, where its
MACs are spent (`amc_tf.graph.layer_rule.LayerRule`), and what it computes
(`amc_tf.graph.layer_kinds.LayerKind`). Graph analysis, surgery, costs, refit
and batch norm folding read the same row, so that a new layer needs one more
row and nothing else. Classes are matched exactly, never by inheritance: a
subclass may compute anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from keras import layers as kl
from keras.src.applications import convnext, inception_resnet_v2

from amc_tf.graph import kernel_propagation, parameter, propagation, rewrites
from amc_tf.graph.activations import clipped, is_linear
from amc_tf.graph.composites import RULE_ATTRIBUTE
from amc_tf.graph.keras_structure import activation_ops, image_ops, nn_ops, numpy_ops
from amc_tf.graph.layer_kinds import RECTIFIED, UNBOUNDED, UNKNOWN, Bounds, LayerKind, Product
from amc_tf.graph.layer_rule import LayerRule
from amc_tf.graph.network import Call, Value

_OUT = {"bias": ("out",)}
_DENSE = LayerRule(
    kernel_propagation.mixer,
    weights={"kernel": ("in", "out"), **_OUT},
    widths={"units": "out"},
    mixes={"kernel": "in"},
    macs={"kernel": "out"},
    kind=LayerKind(Product(reads="positions")),
)
# A grouped kernel's input axis holds the channels of one group. Dropping the same positions of
# every group leaves the groups as they are; dropping whole groups ties inputs to outputs.
_WITHIN_GROUPS = LayerRule(
    kernel_propagation.within_groups,
    weights={"kernel": ("part", "out"), **_OUT},
    widths={"filters": "out"},
    mixes={"kernel": "part"},
    macs={"kernel": "out"},
    kind=LayerKind(Product()),
)
_WHOLE_GROUPS = LayerRule(
    kernel_propagation.whole_groups,
    weights={"kernel": (None, "out"), **_OUT},
    widths={"filters": "out", "groups": "block"},
    macs={"kernel": "out"},
    kind=LayerKind(Product()),
)


def _by_groups(layer: Any) -> LayerRule:
    """Returns the row for a convolution that leaves more choices for pruning it."""
    if layer.groups == 1:
        return _PLAIN_CONV
    inside = layer.kernel.shape[-2]
    return _WHOLE_GROUPS if layer.groups >= inside else _WITHIN_GROUPS


_PLAIN_CONV = dataclasses.replace(
    _DENSE, widths={"filters": "out"}, kind=LayerKind(Product(reads="windows"))
)
_CONV = dataclasses.replace(_PLAIN_CONV, variant=_by_groups)
_CONV_TRANSPOSE = dataclasses.replace(
    _PLAIN_CONV,
    weights={"kernel": ("out", "in"), **_OUT},
    macs={"kernel": "in"},
    kind=LayerKind(Product(outputs=(-2,))),
)
_DEPTHWISE = LayerRule(
    kernel_propagation.depthwise,
    weights={"kernel": ("in", None), **_OUT},
    macs={"kernel": "out"},
    # Output i * multiplier + j reads input i. It is not refitted: one regression for each channel
    # made MobileNet-V1 worse.
    kind=LayerKind(Product(outputs=(-2, -1))),
)
_SEPARABLE = LayerRule(
    kernel_propagation.separable,
    weights={"depthwise_kernel": ("in", None), "pointwise_kernel": ("mid", "out"), **_OUT},
    widths={"filters": "out"},
    mixes={"pointwise_kernel": "mid"},
    macs={"depthwise_kernel": "out", "pointwise_kernel": "out"},
    kind=LayerKind(Product("pointwise_kernel", reads="depthwise")),
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
    kind=LayerKind(batch_norm=True, affine=True),
)
_SAME = LayerRule(propagation.same)
# At inference these layers do nothing: they drop or add only in training.
_SAME_VALUE = dataclasses.replace(_SAME, kind=LayerKind(affine=True))
_MERGE = LayerRule(propagation.merge)
_SUM = dataclasses.replace(_MERGE, kind=LayerKind(sums=True))
_STATISTICS = LayerRule(propagation.channel_statistics)


def _recurrent(gates: int) -> LayerRule:
    return LayerRule(
        kernel_propagation.recurrent(gates),
        weights={
            "kernel": ("in", "gates"),
            "recurrent_kernel": ("out", "gates"),
            "bias": ("gates",),
        },
        widths={"units": "out"},
        mixes={"kernel": "in", "recurrent_kernel": "out"},
        macs={"kernel": "in", "recurrent_kernel": "in"},  # at every step
    )


# --- layers that are known and never pruned -----------------------------------------------------

# The MACs are counted by the input, because the output's size is often left open.
_EINSUM_DENSE = dataclasses.replace(
    _DENSE, widths={"output_shape": "out"}, macs={"kernel": "in"}, kind=UNKNOWN
)
_EINSUM_OTHER = LayerRule(propagation.refused("its equation is not that of a Dense layer"))
_EINSUM = dataclasses.replace(
    _EINSUM_DENSE,
    variant=lambda layer: _EINSUM_DENSE if kernel_propagation.is_dense(layer) else _EINSUM_OTHER,
)
_ATTENTION = LayerRule(propagation.refused("attention mixes its channels with its positions"))
_MASKING = LayerRule(propagation.refused("it masks a position by all of its channels"))
_MIXES_COLOURS = LayerRule(propagation.refused("it mixes colours"))


def _by_rank(parameter: Any) -> LayerRule:
    """Returns the row of a weight as a layer; the weight keeps the name that it had."""
    (weight,) = parameter.weights
    whole = LayerRule(propagation.parameter)
    if len(weight.shape) == 0:  # a TensorShape of no axes is true
        return whole
    return dataclasses.replace(whole, weights={weight.name: ("out",)}, widths={"shape": "out"})


_PARAMETER = LayerRule(propagation.parameter, variant=_by_rank)

# --- operations that depend on their settings -------------------------------------------------


def _divides_a_tensor(call: Call) -> bool:
    return isinstance(call.args[0], Value)


def _holds_linear(call: Call) -> bool:
    return is_linear(call.operation.activation)


def _bounds_of_relu(layer: Any) -> Bounds:
    if layer.negative_slope or layer.threshold:
        return UNBOUNDED
    return (0.0, math.inf if layer.max_value is None else float(layer.max_value))


def _bounds_of_activation(layer: Any) -> Bounds:
    return bounds_of(layer.activation)


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
    (
        LayerRule(
            propagation.activation,
            kind=LayerKind(affine=_holds_linear, clips=_bounds_of_activation),
        ),
        kl,
        "Activation",
    ),
    (LayerRule(propagation.softmax), kl, "Softmax"),
    (_MASKING, kl, "Masking"),
    (
        LayerRule(propagation.rescaling, kind=LayerKind(affine=True, scales=True)),
        kl,
        "Rescaling",
    ),
    (
        LayerRule(
            propagation.normalization,
            weights={"mean": ("in",), "variance": ("in",)},
            kind=LayerKind(scales=True),
        ),
        kl,
        "Normalization",
    ),
    (LayerRule(propagation.same, kind=LayerKind(clips=_bounds_of_relu)), kl, "ReLU"),
    (
        _SAME_VALUE,
        kl,
        "Identity ActivityRegularization "
        "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D AlphaDropout "
        "GaussianDropout GaussianNoise",
    ),
    (
        _SAME,
        kl,
        "LeakyReLU ELU "
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
    (_SUM, kl, "Add Subtract Average"),
    (_MERGE, kl, "Multiply Maximum Minimum"),
    # Layers that keras.applications defines.
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
    (_ATTENTION, kl, "MultiHeadAttention GroupQueryAttention Attention AdditiveAttention"),
    (_recurrent(4), kl, "LSTM"),
    (_recurrent(3), kl, "GRU"),
    (_recurrent(1), kl, "SimpleRNN"),
    (_PARAMETER, parameter, "Parameter"),
    (
        LayerRule(propagation.merge, kind=LayerKind(affine=True, sums=True, scales=True)),
        numpy_ops,
        "Add Subtract",
    ),
    (
        LayerRule(propagation.merge, kind=LayerKind(affine=True, scales=True)),
        numpy_ops,
        "Multiply",
    ),
    (
        LayerRule(propagation.merge, kind=LayerKind(affine=_divides_a_tensor, scales=True)),
        numpy_ops,
        "Divide TrueDivide",
    ),
    (_MERGE, numpy_ops, "DivideNoNan Maximum Minimum Power"),
    (LayerRule(propagation.same, kind=LayerKind(clips=RECTIFIED)), nn_ops, "Relu"),
    (LayerRule(propagation.same, kind=LayerKind(clips=_bounds_of_relu)), activation_ops, "ReLU"),
    (LayerRule(propagation.same, kind=LayerKind(clips=(0.0, 6.0))), nn_ops, "Relu6"),
    (
        _SAME,
        nn_ops,
        "Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus "
        "LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh "
        "HardShrink Threshold MaxPool AveragePool AdaptiveAveragePool AdaptiveMaxPool",
    ),
    (LayerRule(propagation.softmax), nn_ops, "Softmax LogSoftmax"),
    (_SAME_VALUE, numpy_ops, "Negative"),
    (
        _SAME,
        numpy_ops,
        "Tanh Exp Expm1 Log Log1p Abs Absolute Square Sqrt Reciprocal Sign Sin Cos Floor "
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


def rule_of(operation: Any) -> LayerRule | None:
    """Returns the row for an operation (the user's, else the table's); None if there is none."""
    kind = type(operation)
    rule = vars(kind).get(RULE_ATTRIBUTE) or TABLE.get(kind)
    return rule.variant(operation) if rule is not None and rule.variant is not None else rule


def is_registered(operation: Any) -> bool:
    """Returns whether a user has registered the class of an operation."""
    return RULE_ATTRIBUTE in vars(type(operation))


def kind_of(operation: Any) -> LayerKind:
    """Returns what an operation computes."""
    rule = rule_of(operation)
    return UNKNOWN if rule is None else rule.kind


def bounds_of(operation: Any) -> Bounds:
    """Returns the range to which an operation or activation clips.

    The range is all numbers if it is no rectifier.
    """
    bounds = clipped(operation)
    return kind_of(operation).bounds(operation) if bounds == UNBOUNDED else bounds
