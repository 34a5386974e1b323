"""Rows of the layer table for layers that the user wrote."""

from __future__ import annotations

import dataclasses
from typing import Any

from amc_tf.errors import AmcError
from amc_tf.graph import propagation
from amc_tf.graph.layer_kinds import UNBOUNDED, UNKNOWN
from amc_tf.graph.layer_rule import LayerRule
from amc_tf.graph.layer_table import RULE_ATTRIBUTE, TABLE


def register_layer(
    layer_class: type,
    like: type | None = None,
    rule: LayerRule | None = None,
    **changes: Any,
) -> type:
    """Adds a row for your layer class to the layer table.

    You promise that the row is true; `amc_tf.verify` checks on a model what it says of channels.

    The row also says what the layer computes (`LayerRule.kind`): a product with a kernel is
    refitted, a batch norm is folded when plans are scored, and an affine layer is passed through
    on the way from a layer to its rectifier. `like` copies this. A layer like a convolution must
    therefore compute activation(x W + b) with the weights of these names, whatever else its
    `call` does. If it does not, a warning says so, and its weights stay unchanged; pass
    `kind=amc_tf.LayerKind()` if the layer computes nothing of this kind. Only the range to which
    a layer clips is not copied, because layers that treat each channel alone are often
    registered like a ReLU.

    MACs are those of the weights that the row names in `macs`. What the layer's traced computation
    does beyond them is counted, too, at its full width.

        class ChannelScale(keras.layers.Layer):
            ...  # y = x * self.scale, with one scale for each channel

        amc_tf.register_layer(ChannelScale, like=keras.layers.ReLU, weights={"scale": ("in",)})

    Args:
        layer_class: the class; its subclasses are not registered with it.
        like: a class of the table whose channels pass in the same way and
            whose weights and configuration keys have the same names:
            `keras.layers.ReLU` for a layer that treats each channel alone,
            `keras.layers.Dense` for a layer that mixes them, and so on.
            What it computes is copied with the rest of the row.
        rule: a row of your own, instead of `like`.
        **changes: fields of `LayerRule` that differ from that row, such as
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
        raise AmcError("give either like=, a class that passes channels in the same way, or rule=")
    if not (rule is None or isinstance(rule, LayerRule)):
        raise AmcError(f"expected rule= to be an amc_tf.LayerRule, received {rule!r}")
    row = rule if like is None else TABLE.get(like)
    if row is None:
        raise AmcError(
            f"{getattr(like, '__name__', like)} is not in the layer table; choose a class whose "
            "channels pass in the same way, such as keras.layers.ReLU or keras.layers.Dense"
        )

    def changed(row: LayerRule) -> LayerRule:
        kind = row.kind
        if like is not None:
            kind = dataclasses.replace(kind, clips=UNBOUNDED)
        elif kind == UNKNOWN:
            # A subclass computes what its class does, until the check of its row finds otherwise.
            known = next((TABLE[c].kind for c in layer_class.__mro__ if c in TABLE), UNKNOWN)
            kind = dataclasses.replace(known, clips=UNBOUNDED)
        fields: dict[str, Any] = {"kind": kind, **changes}
        return dataclasses.replace(row, **fields)

    try:
        own = changed(row)
    except TypeError as error:
        fields = ", ".join(f.name for f in dataclasses.fields(LayerRule))
        raise AmcError(f"{error}; a row has the fields {fields}") from None
    variant = row.variant
    if variant is not None and "variant" not in changes:

        def changed_variant(layer: Any) -> LayerRule | None:
            try:
                found = variant(layer)
            except AttributeError as error:
                return LayerRule(propagation.refused(f"its row does not fit it ({error})"))
            return None if found is None else changed(found)

        own = dataclasses.replace(own, variant=changed_variant)
    setattr(layer_class, RULE_ATTRIBUTE, own)
    return layer_class
