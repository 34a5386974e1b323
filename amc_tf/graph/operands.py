"""Which arguments of a call are what it computes with, and which are its options."""

from __future__ import annotations

import inspect

import keras

from amc_tf.graph.layer_rule import LayerRule
from amc_tf.graph.layer_table import is_registered
from amc_tf.graph.network import Call, Value

# Names that operations of Keras give to what they read, beside the first parameter.
_OPERANDS = ("inputs", "x", "x1", "x2", "xs", "key")


def options_read(call: Call, rule: LayerRule) -> set[int]:
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
