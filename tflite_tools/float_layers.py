"""The layers of a quantised file that stay float, by the names that the user gives them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tflite_tools import flatbuffer
from tflite_tools.tracing import layer_scopes, layers_of


def require_layers(model: Any, keep_float: Collection[str]) -> None:
    """Refuses, before a conversion, names of layers that the model does not have.

    Raises:
        ValueError: the model has no layer of a name.
    """
    names = {layer.name for layer in layers_of(model)}
    unknown = [name for name in keep_float if name not in names]
    if unknown:
        raise ValueError(
            f"keep_float names {unknown[0]!r}, but the model has no such layer; it has "
            f"{', '.join(sorted(names))}."
        )


def outputs_of(content: bytes, model: Any, keep_float: Collection[str]) -> list[str]:
    """Finds the output tensors of the operators that come from some layers.

    An operator that the converter fused with another layer's (a batch norm, an activation) counts
    for both.

    Args:
        content: the signed float32 file of `model`.
        model: the Keras model, for the names of its layers.
        keep_float: names of layers.

    Raises:
        ValueError: a layer has no operator in the file.
    """
    graph = flatbuffer.read(content).subgraphs[0]
    found: dict[str, set[str]] = {}
    for operator in graph.operators:
        for index in operator.outputs:
            name = flatbuffer.text(graph.tensors[index].name)
            found[name] = set(layer_scopes(model, name))
    wanted = set(keep_float)
    missing = wanted.difference(*found.values())
    if missing:
        raise ValueError(
            f"keep_float names {sorted(missing)[0]!r}, but the converted file has no operator of "
            "that layer: the layer does nothing in inference, or was folded into a constant; leave "
            "it out of keep_float."
        )
    return [name for name, layers in found.items() if layers & wanted]
