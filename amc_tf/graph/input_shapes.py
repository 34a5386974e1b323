"""The input sizes for which a model's work is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.flattening import flatten
from amc_tf.graph.keras_structure import like

# Without the batch axis; None for an open size.
Shape = tuple[int | None, ...]
# One shape, several in the order of the model's inputs, or some by name; empty for none.
InputShape = Sequence[int] | Sequence[Sequence[int | None]] | Mapping[str, Sequence[int]]


def is_open(model: keras.Model) -> bool:
    """Returns whether a model takes inputs of more than one size."""
    return any(None in tensor.shape[1:] for tensor in model.inputs)


def at_size(model: keras.Model, shapes: Sequence[Shape]) -> keras.Model:
    """Returns a model for inputs of these shapes alone, with the same layers.

    A TFLite file, for example, is made for one size.
    """
    if not is_open(model):
        return model
    inputs = [
        keras.Input(shape, dtype=tensor.dtype, name=tensor.name)
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    return like(model, inputs, flatten(model, look_inside=False).run(inputs))


def counted_shapes(model: keras.Model, input_shape: InputShape) -> tuple[Shape, ...]:
    """Returns the shape of each input: the model's own, with open sizes from `input_shape`.

    Raises:
        AmcError: `input_shape` does not fit the model's inputs.
    """
    own = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    names = [tensor.name for tensor in model.inputs]
    if not input_shape:
        return tuple(own)
    given = _by_name(input_shape, names)
    wanted = [given.get(name, shape) for name, shape in zip(names, own, strict=True)]
    for name, shape, sizes in zip(names, own, wanted, strict=True):
        fits = len(shape) == len(sizes) and all(
            one is None or one == other for one, other in zip(shape, sizes, strict=True)
        )
        if not fits:
            raise AmcError(
                f"input_shape: expected a shape that fits the input {name!r} of {shape} (None is "
                f"open), without the batch axis, received {sizes}"
            )
    return tuple(wanted)


def _by_name(input_shape: Any, names: Sequence[str]) -> Mapping[str, Shape]:
    def is_shape(value: Any) -> bool:
        return isinstance(value, (tuple, list)) and all(
            isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in value
        )

    if isinstance(input_shape, Mapping):
        unknown = sorted(set(input_shape) - set(names))
        shapes = dict(input_shape)
    else:
        listed = [input_shape] if is_shape(input_shape) else list(input_shape)
        unknown = [] if len(listed) == len(names) else [f"{len(listed)} shapes"]
        shapes = dict(zip(names, listed, strict=False))
    if unknown or not all(map(is_shape, shapes.values())):
        raise AmcError(
            f"input_shape: expected a shape of positive sizes for each of the inputs "
            f"{', '.join(names)}, received {input_shape!r}"
        )
    return {name: tuple(shape) for name, shape in shapes.items()}
