"""Subclassed models as functional ones."""

from __future__ import annotations

from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.composites import look_into
from amc_tf.graph.inside import Closed, run
from amc_tf.graph.keras_structure import is_functional
from amc_tf.graph.own_classes import own_steps


def functional(model: keras.Model, inputs: Any = None) -> keras.Model:
    """Makes a functional model of a subclassed one: of the calls that it is made of.

    Its layers and weights are those of the model, so that both train together. It computes the
    same, which is checked on random inputs; what cannot be seen of it is refused.

        model = amc_tf.functional(my_model, keras.Input((224, 224, 3)))

    Args:
        model: a model with a `call` of its own. A functional model is returned as it is.
        inputs: what it is called on: a `keras.Input`, or several in a list or dictionary. None for
            one input of the shape that the model was built for.

    Returns:
        A plain, uncompiled `keras.Model`.

    Raises:
        AmcError: the model's input is not known; its calls cannot be seen, or are not all that it
            does; or it has a training step of its own, which a plain model has not.
    """
    if is_functional(model):
        return model
    if not isinstance(model, keras.Model):
        raise AmcError(f"expected a keras.Model (Keras 3), received {type(model).__name__}")
    steps = own_steps(model)
    if steps:
        raise AmcError(
            f"{type(model).__name__} has a {steps[0]} of its own, which a functional model would "
            "not have; give the network that it trains, and its training as Task(fit=...)"
        )
    if inputs is None:
        inputs = _built_for(model)
    try:
        inside = look_into(model, (inputs,), {})
    except Closed as reason:
        raise AmcError(
            f"{type(model).__name__} cannot be made functional: {reason}; express it as "
            "keras.Model(inputs, outputs)"
        ) from reason
    made = run(inside, keras.tree.flatten(inputs))
    structure = model.compute_output_spec(inputs)
    return keras.Model(inputs, keras.tree.pack_sequence_as(structure, made), name=model.name)


def _built_for(model: keras.Model) -> Any:
    """Returns an input of the shape that a model was built for."""
    shape = (getattr(model, "_build_shapes_dict", None) or {}).get("input_shape")
    if not isinstance(shape, (list, tuple)) or not all(
        size is None or isinstance(size, int) for size in shape
    ):
        raise AmcError(
            f"the inputs of {model.name!r} are not known; give them, e.g. "
            "amc_tf.functional(model, keras.Input((224, 224, 3)))"
        )
    return keras.Input(shape[1:])
