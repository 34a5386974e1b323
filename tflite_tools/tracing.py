"""A Keras model, of Keras 3 or of Keras 2 (tf_keras), as a frozen graph function.

The variables of the function are constants. Its inputs have a static batch of 1 by default, and its
outputs are flattened in the order of ``model.outputs``. A static signature matters: with an open
batch dimension the graph is dynamic, which GPU delegates refuse and which takes several times as
long to convert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model.

    Attributes:
        inputs: one spec for each input, in the order of ``model.inputs``; the batch is 1, or None
            for an open one.
        keys: the names by which a caller of the model passes its inputs as a mapping.
        output_names: a unique name for each output.
    """

    inputs: tuple[tf.TensorSpec, ...]
    keys: tuple[str, ...]
    output_names: tuple[str, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(spec.name for spec in self.inputs)

    def sample_shapes(self) -> list[tuple[int, ...]]:
        """Returns the shape of one sample of each input, with a batch of 1."""
        return [(1, *spec.shape[1:]) for spec in self.inputs]

    def describe(self) -> str:
        """Returns names and shapes as text, for error messages."""
        pairs = zip(self.input_names, self.sample_shapes(), strict=True)
        return ", ".join(f"{name} {shape}" for name, shape in pairs)


def is_keras2(model: Any) -> bool:
    """Tells whether a model is of the package tf_keras, without importing that package."""
    return any(base.__module__.split(".")[0] == "tf_keras" for base in type(model).__mro__)


def model_package(model: Any) -> Any:
    """Returns the package of a model: keras or tf_keras."""
    if is_keras2(model):
        import tf_keras

        return tf_keras
    return keras


def signature_of(model: Any, dynamic_batch: bool = False) -> Signature:
    """Checks a model and describes its inputs and outputs.

    Raises:
        ValueError: the model is not built, or an input has an open dimension besides the batch.
    """
    if not is_keras2(model) and keras.config.backend() != "tensorflow":
        raise ValueError(
            "conversion needs Keras on the TensorFlow backend, but it runs on "
            f"{keras.config.backend()!r}; set KERAS_BACKEND=tensorflow before importing keras."
        )
    if not getattr(model, "inputs", None):
        raise ValueError(
            "model must be a built functional or Sequential keras.Model with known inputs; "
            f"received {type(model).__name__} without them. Begin a Sequential model with "
            "keras.Input; wrap a subclassed one as keras.Model(x, model(x)), x being a keras.Input."
        )
    names = list(model.input_names) if is_keras2(model) else [t.name for t in model.inputs]
    for tensor, name in zip(model.inputs, names, strict=True):
        if tensor.shape[0] not in (None, 1) or None in tuple(tensor.shape[1:]):
            raise ValueError(
                f"input {name!r} has shape {tuple(tensor.shape)}, but conversion needs a "
                "batch of None or 1 and every other dimension fixed; rebuild the model with a "
                "fixed input shape."
            )
    batch = None if dynamic_batch else 1
    specs = [
        tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, names, strict=True)
    ]
    structure = _input_structure(model)
    if isinstance(structure, Mapping):
        # Keras only warns when a key differs from the name of its tensor: the key is what the
        # model's callers write, and flattening puts keys and tensors in the same order.
        names = keras.tree.flatten({key: key for key in structure})
    return Signature(tuple(specs), tuple(names), tuple(_output_names(model)))


def require_finite_weights(model: Any) -> None:
    """Refuses weights from which no meaningful file can be made.

    Raises:
        ValueError: a weight holds NaN or infinity; the message names the first.
    """
    bad, count = [], 0
    for weight in model.weights:
        count += 1
        array = np.asarray(weight.numpy())
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            bad.append(getattr(weight, "path", weight.name))
    if bad:
        raise ValueError(
            f"every weight must be finite, but {len(bad)} of {count} variables hold NaN or "
            f"infinity (the first is {bad[0]!r}); retrain or restore the model."
        )


def freeze(model: Any, signature: Signature) -> Callable[..., Any]:
    """Makes the model in inference mode a concrete function without variables.

    Raises:
        ValueError: the model changes a weight in inference, which a file could not keep.
    """
    changed: list[str] = []

    def call(*tensors: tf.Tensor) -> list[tf.Tensor]:
        structure = _input_structure(model)
        inputs = tensors[0] if structure is None else tf.nest.pack_sequence_as(structure, tensors)
        if is_keras2(model):
            return tf.nest.flatten(model(inputs, training=False))
        # In this scope no variable is changed: those that are could not be frozen. Dropout of a
        # recurrent layer draws its seed in inference, too, and does not use it.
        with keras.StatelessScope() as scope:
            outputs = tf.nest.flatten(model(inputs, training=False))
        seeds = {id(v) for v in model.variables if v.name == "seed_generator_state"}
        if scope.state_mapping.keys() - seeds:
            stateful = [x.name for x in layers_of(model) if getattr(x, "stateful", False)]
            changed.extend(stateful or [model.name])
        return outputs

    traced = tf.function(call, input_signature=signature.inputs, autograph=False)
    function = traced.get_concrete_function()
    if changed:
        raise ValueError(
            f"{changed[0]!r} changes a variable in inference, which a .tflite file does not keep; "
            "set stateful=False in a recurrent layer, or make it an input and an output."
        )
    # If they were not frozen, the converter would leave the variables out without an error.
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def output_paths(function: Any) -> list[str]:
    """Returns the operations, as paths of layer names, that make a frozen function's outputs."""
    paths = []
    for tensor in function.outputs:
        operation = tensor.op
        while operation.type == "Identity" and "/" not in operation.name:
            operation = operation.inputs[0].op
        paths.append(operation.name)
    return paths


def has_loops(function: Any) -> bool:
    """Tells whether a frozen function holds a loop; TensorFlow's calibrator crashes on loops."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return any(node.op in ("While", "StatelessWhile") for node in nodes)


def in_float32(model: Any) -> Any:
    """Returns the model, or a float32 copy if it computes in 16 bits, which LiteRT cannot run."""
    policies = [getattr(layer, "dtype_policy", None) for layer in layers_of(model)]
    if not any("16" in str(getattr(policy, "compute_dtype", "")) for policy in policies):
        return model

    def clone(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    models = model_package(model).models
    nested = {} if is_keras2(model) else {"recursive": True}
    copy = models.clone_model(model, clone_function=clone, **nested)
    copy.set_weights([np.asarray(w, np.float32) for w in model.get_weights()])
    return copy


def layer_scopes(model: Any, tensor_name: str) -> Iterator[str]:
    """Yields the names of the layers whose operations a tensor of the converted file comes from.

    The converter joins the names of operations that it fuses by ";". Each is a path of layer
    names. Keras 3 opens every layer's scope twice, so TensorFlow appends a number to it.
    """
    names = {layer.name for layer in layers_of(model)}
    for path in tensor_name.split(";"):
        for scope in path.split("/")[:-1]:
            stem, _, number = scope.rpartition("_")
            without = stem if stem and number.isdigit() else scope
            for name in (scope, without) if is_keras2(model) else (without, scope):
                if name in names:
                    yield name
                    break


def layers_of(model: Any) -> list[Any]:
    """Returns every layer of a model, including those in nested models and wrappers."""
    return list(model._flatten_layers(include_self=False))


def _input_structure(model: Any) -> Any:
    """Returns the nesting in which the model takes its inputs; None for a single tensor."""
    # A Sequential model of Keras 3 has one input and no such structure until it has been called.
    structure = getattr(model, "_nested_inputs" if is_keras2(model) else "_inputs_struct", None)
    return structure if isinstance(structure, (Mapping, Sequence)) else None


def _output_names(model: Any) -> list[str]:
    structure = getattr(model, "_nested_outputs" if is_keras2(model) else "_outputs_struct", None)
    if isinstance(structure, Mapping) and len(structure) == len(model.outputs):
        names = keras.tree.flatten({key: key for key in structure})
    else:
        names = list(getattr(model, "output_names", None) or ["output"] * len(model.outputs))
    unique: list[str] = []
    for name in map(str, names):
        copies = 1
        candidate = name
        while candidate in unique:
            copies += 1
            candidate = f"{name}_{copies}"
        unique.append(candidate)
    return unique
