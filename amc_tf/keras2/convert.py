"""Conversion between models of Keras 2 (the package tf_keras) and Keras 3.

A model is made anew in the other version call by call: layers by the rules of
`amc_tf.keras2.layers`, other operations by the tables of
`amc_tf.keras2.ops_from_keras2` and `amc_tf.keras2.ops_to_keras2`. Each copy is
compared with its original on random inputs before it is returned.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.graph import flattening
from amc_tf.graph.keras_structure import nesting, pack
from amc_tf.graph.layer_table import TABLE
from amc_tf.graph.network import Call, Network
from amc_tf.keras2 import ops_from_keras2, ops_to_keras2
from amc_tf.keras2.equivalence import check_copy
from amc_tf.keras2.layers import LayerCarrier
from amc_tf.keras2.model_files import load_file
from amc_tf.keras2.network import LAYERS_WITH_A_FUNCTION, flatten_keras_2, gives_several


def from_keras2(
    model_or_path: Any,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> keras.Model:
    """Makes a Keras 3 model from a Keras 2 model; nested models are inlined.

    Names, weights, `trainable` flags, regularizers and the nesting of inputs
    and outputs are kept; compile settings are not. `training=False` in the call
    of a layer or nested model is not kept either, as Keras 3 overrides it in
    `fit`: set `trainable = False` on batch norms whose statistics must not change.

    Args:
        model_or_path: a functional or sequential `tf_keras` model, or the path
            of an .h5 or .keras file or a SavedModel folder that holds one. `~`
            is expanded.
        custom_objects: mapping from the name of a Keras 2 class to the
            `keras.Layer` (or regularizer, constraint) that does the same, and from
            the name of an activation to its counterpart. A counterpart must take
            the configuration of the Keras 2 class, and have the same weights in
            the same order. No entry is needed for classes that are registered
            under the same name in both versions of Keras, nor for activations
            that are plain TensorFlow functions.
        safe_mode: whether files that would execute their own code are refused, see
            `amc_tf.keras2.safety.refuse_code`.

    Returns:
        A new, uncompiled functional model.

    Raises:
        AmcError: the file cannot be loaded or holds code; the model is subclassed or not
            built; a class has no counterpart (the message names all such classes); the
            copy does not compute the same outputs (the message names the first layer
            that differs).
    """
    import tf_keras

    if isinstance(model_or_path, (str, pathlib.Path)):
        model_or_path = load_file(pathlib.Path(model_or_path).expanduser(), safe_mode)
    model = model_or_path
    source = flatten_keras_2(model)
    layers = LayerCarrier(tf_keras, keras, custom_objects)
    _refuse_unknown(source, layers, "keras.Layer")
    made: dict[int, Any] = {}

    def invoke(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        layer, name = call.operation, source.name(call.operation)
        if type(layer).__name__ in LAYERS_WITH_A_FUNCTION:
            outputs = tf.nest.flatten([source.tensors[n] for n in call.outputs])
            like = outputs if gives_several(layer) else outputs[0]
            return ops_from_keras2.from_keras_2(layer, like, name)(*args, **kwargs)
        if id(layer) not in made:
            made[id(layer)] = layers.carry(layer, name)
        return made[id(layer)](*args, **kwargs)

    inputs = [
        keras.Input(batch_shape=tuple(t.shape), dtype=t.dtype.name, name=name)
        for t, name in zip(model.inputs, model.input_names, strict=True)
    ]
    outputs = source.run(inputs, invoke)
    copy = keras.Model(
        tf.nest.pack_sequence_as(model._nested_inputs, inputs),
        tf.nest.pack_sequence_as(model._nested_outputs, outputs),
        name=model.name,
    )
    _copy_weights(source, layers, made)
    check_copy(source, model._nested_inputs, copy, invoke, "Keras 3 copy")
    return copy


def to_keras2(model: keras.Model, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Makes a Keras 2 model from a Keras 3 model, with stock layers where they exist.

    `keras.ops` calls become stock layers that compute the same, or TensorFlow
    functions if there is no such layer. An operation that has neither is wrapped
    in a Lambda layer, which can be run but not saved.

    Args:
        model: a functional or built sequential Keras 3 model.
        custom_objects: mapping from the name of a Keras 3 class or activation to its
            Keras 2 counterpart, as for `from_keras2`.

    Returns:
        A new, uncompiled functional `tf_keras.Model` with the weights of `model`.

    Raises:
        AmcError: the same errors as for `from_keras2`, except those of files.
    """
    import tf_keras

    from amc_tf.keras2.parameter import Parameter

    # A class of the user's is carried as one layer, by the counterpart that they give.
    source = flattening.flatten(model, look_inside=False)
    known = {Parameter.__name__: Parameter, **(custom_objects or {})}
    layers = LayerCarrier(keras, tf_keras, known)
    _refuse_unknown(source, layers, "tf_keras.layers.Layer")
    made: dict[int, Any] = {}

    def invoke(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        operation, name = call.operation, source.name(call.operation)
        # Keras 3 records a layer's default for `training`; in Keras 2 the model could not
        # override it.
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        make = _maker(tf_keras, name, source.tensors[call.outputs[0]].dtype)
        if not isinstance(operation, keras.Layer):
            return ops_to_keras2.to_keras_2(make, operation, args, kwargs)
        activation = getattr(operation, "activation", None)
        split = type(operation) in TABLE and activation in ops_to_keras2.ACTIVATIONS_AS_LAYERS
        if split and type(operation) is keras.layers.Activation:
            return ops_to_keras2.ACTIVATIONS_AS_LAYERS[activation](make, operation, *args)
        if id(operation) not in made:
            changes = {"activation": "linear"} if split else {}
            made[id(operation)] = layers.carry(operation, name, **changes)
        out = made[id(operation)](*args, **kwargs)
        if split:
            make = _maker(tf_keras, f"{name}_activation", operation.compute_dtype)
            out = ops_to_keras2.ACTIVATIONS_AS_LAYERS[activation](make, operation, out)
        return out

    inputs = [
        tf_keras.Input(t.shape[1:], batch_size=t.shape[0], dtype=t.dtype, name=t.name)
        for t in model.inputs
    ]
    outputs = source.run(inputs, invoke)
    inputs_like = nesting(model, "inputs")
    copy = tf_keras.Model(
        pack(inputs_like, inputs),
        pack(nesting(model, "outputs"), outputs),
        name=model.name,
    )
    _copy_weights(source, layers, made)
    check_copy(source, inputs_like, copy, invoke, "Keras 2 copy")
    return copy


# --- what both directions share ------------------------------------------------------------


def _refuse_unknown(source: Network, layers: LayerCarrier, wanted: str) -> None:
    missing = []
    for operation in source.operations():
        if isinstance(operation, layers.source.layers.Layer) and (
            type(operation).__name__ not in LAYERS_WITH_A_FUNCTION
        ):
            missing += layers.missing(operation)
    if missing:
        names = ", ".join(sorted(set(missing)))
        raise AmcError(
            f"model {source.model.name!r} uses classes without a known counterpart in "
            f"{layers.target.__name__} {layers.target.__version__}: {names}; give one for each, "
            f'for example custom_objects={{"{missing[0]}": MyVersion}} where MyVersion is a '
            f"{wanted} that takes the same configuration"
        )


def _maker(tf_keras: Any, name: str, dtype: str) -> Callable[..., Any]:
    """Returns a function that makes the stock Keras 2 layers that replace one operation."""
    count = 0

    def make(kind: str, **config: Any) -> Any:
        nonlocal count
        count += 1
        own = name if count == 1 else f"{name}_part{count}"
        floating = keras.backend.is_float_dtype(dtype)
        return getattr(tf_keras.layers, kind)(
            name=own, **({"dtype": dtype} if floating else {}), **config
        )

    return make


def _copy_weights(source: Network, layers: LayerCarrier, made: Mapping[int, Any]) -> None:
    for old in source.operations():
        if id(old) in made:
            layers.copy_weights(old, made[id(old)])
