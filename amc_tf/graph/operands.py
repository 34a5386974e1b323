"""Which arguments of a call are what it computes with, which are its options, what is neither."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import keras

from amc_tf.graph.constants import has_array_settings
from amc_tf.graph.layer_rule import LayerRule
from amc_tf.graph.layer_table import is_registered
from amc_tf.graph.network import Call, Value

# Names that operations of Keras give to what they read, beside the first parameter.
_OPERANDS = ("inputs", "x", "x1", "x2", "xs", "key")


def obstacle(
    call: Call, rule: LayerRule, shapes: Mapping[int, tuple[int | None, ...]]
) -> str | None:
    """Returns why a call cannot be followed, whatever its row says; None if it may be.

    Args:
        call: the call.
        rule: the row of its operation.
        shapes: shapes of the values that it reads and makes, by their numbers.
    """
    if not call.inputs:
        return "it has no inputs"
    if not all(shapes.values()):
        return "one of its tensors has no axes"
    widths = [shape[-1] if len(shape) > 1 else None for shape in shapes.values()]
    if rule.axes == "frozen" and not all(widths):
        return "a tensor's channel axis has no known size"
    if rule.axes == "alike" and has_array_settings(call.operation):
        return "one of its settings is an array"
    if _options_read(call, rule):
        return "one of its options is a tensor"
    return None


def _options_read(call: Call, rule: LayerRule) -> set[int]:
    """Returns the values passed to a parameter that is not an operand's (a mask, say).

    Of a layer that the user registered, positional arguments are operands.

    Args:
        call: the call.
        rule: the row of its operation.
    """
    parameters = list(inspect.signature(type(call.operation).call).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    operands = {*names[:1], *rule.operands, *_OPERANDS}
    positional = () if is_registered(call.operation) else zip(names, call.args, strict=False)
    options = [value for name, value in (*positional, *call.kwargs.items()) if name not in operands]
    return {x.number for x in keras.tree.flatten(options) if isinstance(x, Value)}
