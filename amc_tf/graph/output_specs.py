"""The shapes that operations return, also where Keras does not tell all that is known."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from amc_tf.graph.keras_structure import nn_ops


def output_spec(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Returns the symbolic tensors that an operation returns for symbolic tensors."""
    spec = operation.compute_output_spec(*args, **kwargs)
    if not is_misspecified(operation):
        return spec
    given = list(inspect.signature(operation.call).bind(*args, **kwargs).arguments.values())
    shape = list(spec.shape)
    if isinstance(operation, nn_ops.DotProductAttention):
        shape[-1] = given[2].shape[-1]
    else:
        terms = operation.equation.replace(" ", "").replace("...", "").split("->")
        read, made = terms[0].split(",")[0], terms[1]
        for axis, letter in enumerate(made, -len(made)):
            if shape[axis] is None and letter in read:
                shape[axis] = given[0].shape[read.index(letter) - len(read)]
    return keras.KerasTensor(shape, spec.dtype)


def is_unspecified(node: Any) -> bool:
    """Returns whether a rebuilt network could not call attention so that Keras knows its shape.

    Plain attention is spelt out where its shape is wrong (see `amc_tf.graph.rewrites`).
    """
    if not isinstance(node.operation, nn_ops.DotProductAttention):
        return False
    call, arguments = inspect.signature(node.operation.call), node.arguments
    given = call.bind(*arguments.args, **arguments.kwargs).arguments
    differs = given["query"].shape[-1] != given["value"].shape[-1]
    return differs and not is_plain(node.operation, given)


def is_plain(operation: Any, given: Mapping[str, Any]) -> bool:
    """Returns whether attention has neither a mask, nor a bias, nor another setting."""
    masked = any(given.get(name) is not None for name in ("bias", "mask"))
    return not (masked or operation.is_causal or operation.attn_logits_soft_cap)


def is_misspecified(operation: Any) -> bool:
    """Returns whether Keras may tell less than is known of the shape that an operation returns.

    It takes the width of attention's queries for that of its values, and of a layer with an einsum
    it tells no sizes that the layer's `output_shape` leaves open.
    """
    return type(operation) in (nn_ops.DotProductAttention, keras.layers.EinsumDense)


def tensors_of(returned: Any) -> list[Any]:
    """Returns what a call returned, flat; it may return None beside tensors."""
    return [x for x in keras.tree.flatten(returned) if x is not None]
