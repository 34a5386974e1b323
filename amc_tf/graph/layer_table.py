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
from collections.abc import Mapping
from typing import Any

from keras import layers as kl
from keras.src.applications import convnext, inception_resnet_v2
from keras.src.ops import math as math_ops

from amc_tf.graph import contractions, moving, parameter, propagation, reshaping, rewrites
from amc_tf.graph import layer_rows as rows
from amc_tf.graph.activations import clipped
from amc_tf.graph.composites import RULE_ATTRIBUTE
from amc_tf.graph.keras_structure import (
    activation_ops,
    core_ops,
    image_ops,
    nn_ops,
    numpy_ops,
)
from amc_tf.graph.layer_kinds import RECTIFIED, UNBOUNDED, UNKNOWN, Bounds, LayerKind
from amc_tf.graph.layer_rule import ANY_NAME, LayerRule


def _bounds_of_activation(layer: Any) -> Bounds:
    return bounds_of(layer.activation)


_CONCATENATED = LayerRule(propagation.concatenate, axes="alike", keeps_zero=True)
_ROWS: tuple[tuple[LayerRule, Any, str], ...] = (
    (rows.CONV, kl, "Conv1D Conv2D Conv3D"),
    (rows.CONV_TRANSPOSE, kl, "Conv1DTranspose Conv2DTranspose Conv3DTranspose"),
    (rows.DENSE, kl, "Dense"),
    (rows.EINSUM_DENSE, kl, "EinsumDense"),
    (rows.EMBEDDING, kl, "Embedding"),
    (rows.DEPTHWISE, kl, "DepthwiseConv1D DepthwiseConv2D"),
    (rows.SEPARABLE, kl, "SeparableConv1D SeparableConv2D"),
    (rows.BATCH_NORM, kl, "BatchNormalization"),
    (
        LayerRule(propagation.group_norm, weights=rows.SCALE, widths={"groups": "block"}),
        kl,
        "GroupNormalization",
    ),
    (rows.STATISTICS, kl, "LayerNormalization RMSNormalization UnitNormalization"),
    (LayerRule(propagation.prelu, weights={"alpha": ("in",)}), kl, "PReLU"),
    (
        LayerRule(
            propagation.activation,
            kind=LayerKind(affine=rows.holds_linear, clips=_bounds_of_activation),
            axes="alike",
            keeps_zero=True,
        ),
        kl,
        "Activation",
    ),
    (rows.SOFTMAX, kl, "Softmax"),
    (rows.MASKING, kl, "Masking"),
    (
        LayerRule(propagation.rescaling, kind=LayerKind(affine=True, scales=True), axes="alike"),
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
    (rows.clips(rows.bounds_of_relu), kl, "ReLU"),
    (
        rows.SAME_VALUE,
        kl,
        "Identity ActivityRegularization "
        "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D AlphaDropout "
        "GaussianDropout GaussianNoise",
    ),
    (rows.EACH, kl, "LeakyReLU ELU"),
    (
        rows.SAME,
        kl,
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
        rows.MIXES_COLOURS,
        kl,
        "RandomColorDegeneration RandomColorJitter RandomGrayscale RandomHue RandomSaturation "
        "RandomSharpness AutoContrast Equalization AugMix RandAugment CutMix MixUp "
        "ContrastLimitedAdaptiveHistogramEqualization",
    ),
    (rows.SUM, kl, "Add Subtract Average"),
    (rows.MERGE, kl, "Multiply Maximum Minimum"),
    # Layers that keras.applications defines.
    (rows.MERGE, inception_resnet_v2, "CustomScaleLayer"),
    (
        LayerRule(
            propagation.same,
            weights={ANY_NAME: ("in",)},
            widths={"projection_dim": "in"},
            axes="alike",
            keeps_zero=True,
        ),
        convnext,
        "LayerScale",
    ),
    (rows.SAME, convnext, "StochasticDepth"),
    (_CONCATENATED, kl, "Concatenate"),
    (rows.moves(reshaping.flatten), kl, "Flatten"),
    (rows.moves(reshaping.reshape, rewrites.rewrite_reshape), kl, "Reshape"),
    (rows.moves(moving.permute), kl, "Permute"),
    (rows.ATTENTION, kl, "MultiHeadAttention GroupQueryAttention Attention AdditiveAttention"),
    (rows.recurrent(4), kl, "LSTM"),
    (rows.recurrent(3), kl, "GRU"),
    (rows.recurrent(1), kl, "SimpleRNN"),
    (rows.CONV_LSTM, kl, "ConvLSTM1D ConvLSTM2D ConvLSTM3D"),
    (rows.PARAMETER, parameter, "Parameter"),
    (
        dataclasses.replace(
            rows.MERGE,
            kind=LayerKind(affine=True, sums=True, scales=True),
            keeps_zero=rows.adds_tensors,
        ),
        numpy_ops,
        "Add Subtract",
    ),
    (
        dataclasses.replace(rows.MERGE, kind=LayerKind(affine=True, scales=True), keeps_zero=True),
        numpy_ops,
        "Multiply",
    ),
    (
        dataclasses.replace(
            rows.MERGE,
            kind=LayerKind(affine=rows.divides_a_tensor, scales=True),
            keeps_zero=rows.divides_by_a_number,
        ),
        numpy_ops,
        "Divide TrueDivide",
    ),
    (
        rows.MERGE,
        numpy_ops,
        "DivideNoNan Power FloorDivide Mod Fmod Fmax Fmin Hypot Arctan2 Heaviside "
        "Logaddexp Logaddexp2 Ldexp Nextafter Gcd Lcm Equal NotEqual Greater GreaterEqual Less "
        "LessEqual Isclose LogicalAnd LogicalOr LogicalXor BitwiseAnd BitwiseOr BitwiseXor "
        "BitwiseLeftShift LeftShift BitwiseRightShift RightShift",
    ),
    (dataclasses.replace(rows.MERGE, keeps_zero=rows.is_at_most_zero), numpy_ops, "Maximum"),
    (dataclasses.replace(rows.MERGE, keeps_zero=rows.is_at_least_zero), numpy_ops, "Minimum"),
    (dataclasses.replace(rows.MERGE, operands=("condition",)), numpy_ops, "Where"),
    (rows.clips(RECTIFIED), nn_ops, "Relu"),
    (rows.clips(rows.bounds_of_relu), activation_ops, "ReLU"),
    (rows.clips((0.0, 6.0)), nn_ops, "Relu6"),
    (
        rows.EACH,
        nn_ops,
        "Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus "
        "LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh "
        "HardShrink Threshold",
    ),
    (rows.SAME, nn_ops, "MaxPool AveragePool AdaptiveAveragePool AdaptiveMaxPool"),
    (rows.SOFTMAX, nn_ops, "Softmax LogSoftmax"),
    (rows.SAME_VALUE, numpy_ops, "Negative"),
    (rows.SAME_AT_ZERO, core_ops, "Cast StopGradient SaturateCast"),
    (
        rows.EACH,
        numpy_ops,
        "Exp Exp2 Log Log1p Log2 Log10 Reciprocal Cos Cosh Arccos Arccosh Clip Sinc I0 Signbit "
        "Isfinite Isinf Isnan Isneginf Isposinf Isreal LogicalNot OnesLike BitwiseInvert "
        "BitwiseNot Angle",
    ),
    (
        rows.SAME_AT_ZERO,
        numpy_ops,
        "Tanh Expm1 Abs Absolute Fabs Square Sqrt Cbrt Sign Sin Sinh Tan Arcsin Arcsinh Arctan "
        "Arctanh Floor Ceil Round Trunc Copy Deg2rad Rad2deg NanToNum Conjugate Conj Real Imag "
        "ZerosLike",
    ),
    (rows.EACH, math_ops, "Rsqrt Erfc"),
    (rows.SAME_AT_ZERO, math_ops, "Erf Erfinv"),
    (rows.SAME, image_ops, "Resize"),
    (_CONCATENATED, numpy_ops, "Concatenate"),
    (LayerRule(propagation.stack), numpy_ops, "Stack"),
    (rows.moves(moving.split, rewrites.rewrite_split), numpy_ops, "Split"),
    (
        rows.moves(moving.reduce),
        numpy_ops,
        "Mean Max Min Sum Amax Amin Std Var Prod Ptp Any All CountNonzero Median",
    ),
    (dataclasses.replace(rows.moves(moving.reduce), keeps_zero=False), math_ops, "Logsumexp"),
    (rows.moves(moving.roll), numpy_ops, "Roll"),
    (rows.moves(moving.flip), numpy_ops, "Flip"),
    (rows.moves(moving.move), numpy_ops, "Moveaxis"),
    (rows.moves(moving.get_item, rewrites.rewrite_get_item), numpy_ops, "GetItem"),
    (LayerRule(propagation.pad, rewrite=rewrites.rewrite_pad), numpy_ops, "Pad"),
    (rows.moves(reshaping.reshape, rewrites.rewrite_reshape_op), numpy_ops, "Reshape"),
    (rows.moves(moving.squeeze), numpy_ops, "Squeeze"),
    (rows.moves(moving.expand_dims), numpy_ops, "ExpandDims"),
    (rows.moves(moving.transpose), numpy_ops, "Transpose"),
    (rows.moves(moving.swap), numpy_ops, "Swapaxes"),
    (rows.moves(moving.repeat), numpy_ops, "Repeat"),
    (rows.moves(moving.unstack), core_ops, "Unstack"),
    (LayerRule(moving.take, axes="own", operands=("indices",)), numpy_ops, "Take"),
    (rows.moves(contractions.einsum), numpy_ops, "Einsum"),
    (rows.moves(contractions.matmul), numpy_ops, "Matmul"),
    (rows.ATTENDS, nn_ops, "DotProductAttention"),
    (LayerRule(reshaping.depth_to_space), nn_ops, "DepthToSpace"),
    (LayerRule(reshaping.space_to_depth), nn_ops, "SpaceToDepth"),
    (rows.with_kernel(contractions.convolution), nn_ops, "Conv"),
    (rows.with_kernel(contractions.depthwise_convolution), nn_ops, "DepthwiseConv"),
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
