"""Rows of the layer table that classes share, and what makes rows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from amc_tf.graph import (
    contractions,
    kernel_propagation,
    propagation,
    rewrites,
)
from amc_tf.graph.activations import is_linear, keeps_zero
from amc_tf.graph.layer_kinds import UNBOUNDED, Bounds, LayerKind, Product
from amc_tf.graph.layer_rule import Connect, LayerRule, Rewrite, axis_role
from amc_tf.graph.network import Call, Value

_OUT = {"bias": ("out",)}
DENSE = LayerRule(
    kernel_propagation.mixer,
    weights={"kernel": ("in", "out"), **_OUT},
    widths={"units": "out"},
    mixes={"kernel": "in"},
    macs={"kernel": "out"},
    kind=LayerKind(Product(reads="positions")),
    axes="alike",
    keeps_zero=True,
)
# A grouped kernel's input axis holds the channels of one group. Dropping the same positions of
# every group leaves the groups as they are; dropping whole groups ties inputs to outputs.
WITHIN_GROUPS = LayerRule(
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
    return _WHOLE_GROUPS if layer.groups >= inside else WITHIN_GROUPS


_PLAIN_CONV = dataclasses.replace(
    DENSE, widths={"filters": "out"}, kind=LayerKind(Product(reads="windows")), axes="frozen"
)
CONV = dataclasses.replace(_PLAIN_CONV, variant=_by_groups)
CONV_TRANSPOSE = dataclasses.replace(
    _PLAIN_CONV,
    weights={"kernel": ("out", "in"), **_OUT},
    macs={"kernel": "in"},
    kind=LayerKind(Product(outputs=(-2,))),
)
DEPTHWISE = LayerRule(
    kernel_propagation.depthwise,
    weights={"kernel": ("in", None), **_OUT},
    macs={"kernel": "out"},
    # Output i * multiplier + j reads input i. It is not refitted: one regression for each channel
    # made MobileNet-V1 worse.
    kind=LayerKind(Product(outputs=(-2, -1))),
)
SEPARABLE = LayerRule(
    kernel_propagation.separable,
    weights={"depthwise_kernel": ("in", None), "pointwise_kernel": ("mid", "out"), **_OUT},
    widths={"filters": "out"},
    mixes={"pointwise_kernel": "mid"},
    macs={"depthwise_kernel": "out", "pointwise_kernel": "out"},
    kind=LayerKind(Product("pointwise_kernel", reads="depthwise")),
)
SCALE = {"gamma": ("in",), "beta": ("in",)}
BATCH_NORM = LayerRule(
    propagation.batch_norm,
    weights={
        **SCALE,
        "moving_mean": ("in",),
        "moving_variance": ("in",),
        "moving_stddev": ("in",),
        "renorm_mean": ("in",),
        "renorm_stddev": ("in",),
    },
    kind=LayerKind(batch_norm=True, affine=True),
    axes="alike",
    keeps_zero=True,
)
SAME = LayerRule(propagation.same)
EACH = dataclasses.replace(SAME, axes="alike")  # every element by itself
SAME_AT_ZERO = dataclasses.replace(EACH, keeps_zero=True)  # and 0 becomes 0
# At inference these layers do nothing: they drop or add only in training.
SAME_VALUE = dataclasses.replace(EACH, kind=LayerKind(affine=True), keeps_zero=True)
MERGE = LayerRule(propagation.merge, axes="alike")
SUM = dataclasses.replace(MERGE, kind=LayerKind(sums=True), keeps_zero=True)
STATISTICS = LayerRule(
    propagation.channel_statistics,
    weights={**SCALE, "scale": ("in",)},
    axes="alike",
    keeps_zero=lambda call: any(w.name in ("gamma", "scale") for w in call.operation.weights),
)


def recurrent(gates: int, width: str = "units") -> LayerRule:
    """Makes the row of a recurrent layer whose units have a column for each gate.

    Args:
        gates: number of gates.
        width: configuration key of the number of units.
    """
    return LayerRule(
        kernel_propagation.recurrent(gates),
        weights={
            "kernel": ("in", "gates"),
            "recurrent_kernel": ("out", "gates"),
            "bias": ("gates",),
        },
        widths={width: "out"},
        mixes={"kernel": "in", "recurrent_kernel": "out"},
        macs={"kernel": "in", "recurrent_kernel": "in"},  # at every step
    )


def _by_positions(layer: Any) -> LayerRule:
    """Returns the row of a convolutional recurrent layer.

    The work of both its kernels is counted at the positions of its input.
    """
    if layer.padding == "same" and all(stride == 1 for stride in layer.strides):
        return recurrent(4, "filters")
    return LayerRule(propagation.refused("its strides are not 1 or its padding is not 'same'"))


CONV_LSTM = dataclasses.replace(recurrent(4, "filters"), variant=_by_positions)

# --- layers that are known and never pruned -----------------------------------------------------

ATTENTION = LayerRule(propagation.refused("attention mixes its channels with its positions"))
SOFTMAX = LayerRule(propagation.softmax, axes="alike")
MASKING = LayerRule(propagation.refused("it masks a position by all of its channels"))
MIXES_COLOURS = LayerRule(propagation.refused("it mixes colours"))


def _by_rank(parameter: Any) -> LayerRule:
    """Returns the row of a weight as a layer; the weight keeps the name that it had."""
    (weight,) = parameter.weights
    sizes = enumerate(weight.shape, -len(weight.shape))
    roles = tuple(
        axis_role("out", axis) if size > 1 or axis == -1 else None for axis, size in sizes
    )
    whole = LayerRule(propagation.parameter, axes="own", keeps_zero=True)
    if not roles:
        return whole
    return dataclasses.replace(whole, weights={weight.name: roles}, widths={"shape": roles})


EMBEDDING = LayerRule(
    kernel_propagation.embedding,
    weights={"embeddings": (None, "out")},
    widths={"output_dim": "out"},
    axes="own",
    keeps_zero=True,
)
PARAMETER = LayerRule(propagation.parameter, variant=_by_rank)
# Products of tensors, as in attention.
EINSUM_DENSE = LayerRule(propagation.same, variant=contractions.einsum_dense)
ATTENDS = LayerRule(
    contractions.dot_product_attention,
    rewrite=rewrites.rewrite_attention,
    axes="own",
    keeps_zero=True,
    operands=("query", "key", "value", "bias", "mask"),
)

# --- operations that depend on their settings -------------------------------------------------


def divides_a_tensor(call: Call) -> bool:
    """Returns whether what is divided is a tensor."""
    return bool(call.args) and isinstance(call.args[0], Value)


def divides_by_a_number(call: Call) -> bool:
    """Returns whether a tensor is divided by what is none, and may not be 0 where it is."""
    return divides_a_tensor(call) and not any(isinstance(x, Value) for x in call.args[1:])


def adds_tensors(call: Call) -> bool:
    """Returns whether all that is added are tensors, none a number."""
    return not _given_values(call)


def is_at_most_zero(call: Call) -> bool:
    """Returns whether the larger of what a call reads is 0 where all its tensors are."""
    return all((np.asarray(x) <= 0).all() for x in _given_values(call))


def is_at_least_zero(call: Call) -> bool:
    """Returns whether the smaller of what a call reads is 0 where all its tensors are."""
    return all((np.asarray(x) >= 0).all() for x in _given_values(call))


def _given_values(call: Call) -> list[Any]:
    return [x for x in (*call.args, *call.kwargs.values()) if not isinstance(x, Value)]


def holds_linear(call: Call) -> bool:
    """Returns whether a layer's activation returns what it reads."""
    return is_linear(call.operation.activation)


def bounds_of_relu(layer: Any) -> Bounds:
    """Returns the range to which a ReLU with settings clips."""
    if layer.negative_slope or layer.threshold:
        return UNBOUNDED
    return (0.0, math.inf if layer.max_value is None else float(layer.max_value))


def clips(bounds: Any) -> LayerRule:
    """Makes the row of an operation on each element that clips."""
    return dataclasses.replace(EACH, kind=LayerKind(clips=bounds), keeps_zero=_is_zero_at_zero)


def _is_zero_at_zero(call: Call) -> bool:
    return keeps_zero(call.operation)


def with_kernel(connect: Connect) -> LayerRule:
    """Makes the row of an operation that reads a kernel as a tensor."""
    return LayerRule(connect, axes="own", operands=("kernel",), keeps_zero=True)


def moves(connect: Connect, rewrite: Rewrite | None = None) -> LayerRule:
    """Makes the row of an operation that cuts, joins, moves or multiplies axes."""
    return LayerRule(connect, rewrite=rewrite, axes="own", keeps_zero=True)
