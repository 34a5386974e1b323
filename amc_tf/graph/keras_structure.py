"""How Keras models are put together, and what of that is private to Keras."""

from __future__ import annotations

from typing import Any

import keras


def uncompiled(model: keras.Model) -> keras.Model:
    """The same layers without compile settings: what a file should hold.

    A loss of the owner's own would have to be registered wherever the file is
    read, and the optimizer's state doubles or triples its size.
    """
    return like(model, model.inputs, model.outputs)


def like(model: keras.Model, inputs: list[Any], outputs: list[Any]) -> keras.Model:
    """A functional model whose inputs and outputs are nested as those of `model`."""

    def nested(structure: Any, tensors: list[Any]) -> Any:
        if structure is None:
            return tensors if len(tensors) > 1 else tensors[0]
        return keras.tree.pack_sequence_as(structure, tensors)

    return keras.Model(
        nested(getattr(model, "_inputs_struct", None), inputs),
        nested(getattr(model, "_outputs_struct", None), outputs),
        name=model.name,
    )


def nesting(model: keras.Model, side: str) -> Any:
    """How the model's inputs or outputs are nested."""
    tensors = getattr(model, side)
    return getattr(model, f"_{side}_struct", tensors if len(tensors) > 1 else tensors[0])
