"""Keras 2 models (the package tf_keras) in, and out again.

A Keras 2 model is made anew in Keras 3 call by call, and a Keras 3 model in
Keras 2 likewise: layers by the rules of `keras2_layers`, other operations by
the tables of `keras2_ops`. Each copy is run beside its original on random
inputs before it is handed out.
"""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.graph import network
from amc_tf.graph.layer_table import TABLE
from amc_tf.graph.network import Call, Network, Value
from amc_tf.keras2 import ops_from_keras2, safety
from amc_tf.keras2.layers import LayerCarrier

# Largest difference of an output, as a fraction of its largest value: float rounding adds up
# over a hundred layers in another order of operations, and faster in 16 bits.
TOLERANCE = 1e-4
TOLERANCE_16_BIT = 5e-2
# Where an input leaves a size open. Common networks halve a side five times.
OPEN_SIZE = 32
# A list as first argument of these Keras 2 layers holds the initial state behind the sequence.
_RECURRENT = frozenset("RNN LSTM GRU SimpleRNN Bidirectional".split())
_LAYERS_WITH_A_FUNCTION = frozenset({"TFOpLambda", "SlicingOpLambda"})


def from_keras2(
    model_or_path: Any,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
) -> keras.Model:
    """Makes a Keras 2 model anew in Keras 3, nested models inlined.

    Names, weights, `trainable` flags, regularizers and the nesting of inputs
    and outputs are kept; compile settings are not. Neither is `training=False`
    in the call of a layer or nested model, which Keras 3 overrides in `fit`: set
    `trainable = False` on batch norms that must stay at rest.

    Args:
        model_or_path: a functional or sequential `tf_keras` model, or the path
            of an .h5 or .keras file or a SavedModel folder that holds one. `~`
            is expanded.
        custom_objects: name of a Keras 2 class to the `keras.Layer` (or
            regularizer, constraint) that does the same, name of an activation
            to its counterpart. It must take the configuration of the Keras 2
            class, and have the same weights in the same order. Classes that
            are registered in both Kerases under one name need no entry, and
            activations that are plain TensorFlow functions none either.
        safe_mode: whether files that would execute code of theirs are refused, see
            `amc_tf.keras2.safety.refuse_code`.

    Returns:
        A new, uncompiled functional model.

    Raises:
        AmcError: the file cannot be loaded or holds code; the model is subclassed or not
            built; a class has no counterpart (all are named); the copy does not
            give the same outputs (names the first layer that differs).
    """
    import tf_keras

    if isinstance(model_or_path, (str, pathlib.Path)):
        model_or_path = _load(pathlib.Path(model_or_path).expanduser(), safe_mode)
    model = model_or_path
    source = flatten_keras_2(model)
    layers = LayerCarrier(tf_keras, keras, custom_objects)
    _refuse_unknown(source, layers, "keras.Layer")
    made: dict[int, Any] = {}

    def invoke(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        layer, name = call.operation, source.name(call.operation)
        if type(layer).__name__ in _LAYERS_WITH_A_FUNCTION:
            outputs = tf.nest.flatten([source.tensors[n] for n in call.outputs])
            structure = layer._inbound_nodes[0].outputs
            like = outputs if isinstance(structure, (list, tuple)) else outputs[0]
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
    _check_copy(source, model._nested_inputs, copy, invoke, "Keras 3 copy")
    return copy


def to_keras2(model: keras.Model, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Makes a Keras 3 model anew in Keras 2, of stock layers where they exist.

    `keras.ops` calls become the stock layers that compute the same, or
    TensorFlow functions where there is none. An operation that has neither is
    wrapped in a Lambda layer, which computes but cannot be saved.

    Args:
        model: a functional or built sequential Keras 3 model.
        custom_objects: name of a Keras 3 class or activation to its Keras 2
            counterpart, as for `from_keras2`.

    Returns:
        A new, uncompiled functional `tf_keras.Model` with the weights of `model`.

    Raises:
        AmcError: as `from_keras2`.
    """
    import tf_keras

    source = network.flatten(model)
    layers = LayerCarrier(keras, tf_keras, custom_objects)
    _refuse_unknown(source, layers, "tf_keras.layers.Layer")
    made: dict[int, Any] = {}

    def invoke(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        operation, name = call.operation, source.name(call.operation)
        # Keras 3 writes a layer's default there, which Keras 2 would not let a model override.
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        make = _maker(tf_keras, name, source.tensors[call.outputs[0]].dtype)
        if not isinstance(operation, keras.Layer):
            return ops_from_keras2.to_keras_2(make, operation, args, kwargs)
        activation = getattr(operation, "activation", None)
        split = type(operation) in TABLE and activation in ops_from_keras2.ACTIVATIONS_AS_LAYERS
        if split and type(operation) is keras.layers.Activation:
            return ops_from_keras2.ACTIVATIONS_AS_LAYERS[activation](make, operation, *args)
        if id(operation) not in made:
            changes = {"activation": "linear"} if split else {}
            made[id(operation)] = layers.carry(operation, name, **changes)
        out = made[id(operation)](*args, **kwargs)
        if split:
            make = _maker(tf_keras, f"{name}_activation", operation.compute_dtype)
            out = ops_from_keras2.ACTIVATIONS_AS_LAYERS[activation](make, operation, out)
        return out

    inputs = [
        tf_keras.Input(t.shape[1:], batch_size=t.shape[0], dtype=t.dtype, name=t.name)
        for t in model.inputs
    ]
    outputs = source.run(inputs, invoke)
    inputs_like = getattr(model, "_inputs_struct", None)
    copy = tf_keras.Model(
        _pack(inputs_like, inputs),
        _pack(getattr(model, "_outputs_struct", None), outputs),
        name=model.name,
    )
    _copy_weights(source, layers, made)
    _check_copy(source, inputs_like, copy, invoke, "Keras 2 copy")
    return copy


def is_keras2_file(path: pathlib.Path) -> bool:
    """Whether a .keras or .h5 file, or a SavedModel folder, was written by Keras 1 or 2."""
    if path.is_dir():
        return (path / "keras_metadata.pb").exists()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "metadata.json" not in archive.namelist():
                return False
            version = json.loads(archive.read("metadata.json")).get("keras_version", "")
    elif h5py.is_hdf5(path):
        with h5py.File(path) as file:
            # Some of the first files do not tell.
            version = file.attrs.get("keras_version", "1" if "model_config" in file.attrs else "")
    else:
        return False
    version = version.decode() if isinstance(version, bytes) else str(version)
    return version.startswith(("1", "2"))


def _load(path: pathlib.Path, safe_mode: bool) -> Any:
    import tf_keras

    if not path.exists():
        raise AmcError(f"there is no model file or folder {path}")
    if safe_mode:
        safety.refuse_code(path)
    try:
        return tf_keras.models.load_model(path, compile=False, safe_mode=safe_mode)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise AmcError(
            f"{path} cannot be loaded as a Keras 2 model ({type(error).__name__}: {reason}); if "
            "it uses custom objects, register them with "
            "tf_keras.saving.register_keras_serializable, or load it yourself and give the model"
        ) from error


# --- a Keras 2 model as a flat list of calls -----------------------------------------------


def flatten_keras_2(model: Any) -> Network:
    """A built functional or sequential `tf_keras` model as a flat list of calls."""
    import tf_keras

    if not isinstance(model, tf_keras.Model):
        raise AmcError(
            f"expected a Keras 2 model (tf_keras.Model) or a path, received "
            f"{type(model).__module__}.{type(model).__name__}"
        )
    if not _is_functional(model):
        raise AmcError(
            f"model {model.name!r} ({type(model).__name__}) is not a Functional or a built "
            "Sequential model, so its layers cannot be seen; express it as "
            "tf_keras.Model(inputs, outputs), or build it with a known input shape"
        )
    return _Flattener().network(model)


def _is_functional(layer: Any) -> bool:
    import tf_keras
    from tf_keras.src.engine.functional import Functional

    if not isinstance(layer, Functional) or not getattr(layer, "_nodes_by_depth", None):
        return False
    # A subclass that overrides call() does something else than its graph.
    return type(layer).call in (Functional.call, tf_keras.Sequential.call)


class _Flattener(network.Flattener):
    """Walks the nodes of Keras 2, which are laid out otherwise."""

    def inline(self, model: Any, inputs: Sequence[int], path: str) -> list[int]:
        """As in Keras 3."""
        numbers = {id(t): n for t, n in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    outputs = self._follow(node, numbers, path)
                    tensors = tf.nest.flatten(node.outputs)
                    numbers.update(zip(map(id, tensors), outputs, strict=True))
        return [numbers[id(t)] for t in model.outputs]

    def _follow(self, node: Any, numbers: Mapping[int, int], path: str) -> list[int]:
        """Appends the calls of one node; returns the numbers of its outputs."""
        layer = node.layer
        if _is_functional(layer):
            tensors = layer._flatten_to_reference_inputs(node.call_args[0])
            found = [numbers[id(t)] for t in tensors]
            return self.inline(layer, found, f"{path}{layer.name}_")
        args, kwargs = _arguments(node)
        read: list[int] = []

        def refer(x):
            if not _is_keras_2_tensor(x):
                return x
            read.append(numbers[id(x)])
            return Value(numbers[id(x)])

        args, kwargs = keras.tree.map_structure(refer, (args, kwargs))
        self.claim_name(layer, path)
        outputs = [self.new_value(t) for t in tf.nest.flatten(node.outputs)]
        self.calls.append(Call(layer, args, kwargs, tuple(read), tuple(outputs)))
        return outputs


def _arguments(node: Any) -> tuple[tuple, dict[str, Any]]:
    """A node's arguments as Keras 3 takes them: all but tensors by keyword, and nothing empty."""
    layer, args, kwargs = node.layer, node.call_args, node.call_kwargs
    if type(layer).__name__ in _LAYERS_WITH_A_FUNCTION:
        return tuple(args), dict(kwargs)
    names = layer._call_spec.arg_names
    named = {
        name: value
        for name, value in zip(names, args, strict=False)
        if not any(_is_keras_2_tensor(x) for x in tf.nest.flatten(value))
    }
    args = tuple(a for name, a in zip(names, args, strict=False) if name not in named) or args
    kwargs = {k: v for k, v in {**named, **kwargs}.items() if v is not None and k != "training"}
    if type(layer).__name__ in _RECURRENT and isinstance(args[0], (list, tuple)):
        (sequence, *state), *rest = args
        args = (sequence, *rest)
        if state:
            kwargs["initial_state"] = state
    return args, kwargs


def _is_keras_2_tensor(x: Any) -> bool:
    return hasattr(x, "_keras_history")


# --- what both directions share ------------------------------------------------------------


def _refuse_unknown(source: Network, layers: LayerCarrier, wanted: str) -> None:
    missing = []
    for operation in source.operations():
        if isinstance(operation, layers.source.layers.Layer) and (
            type(operation).__name__ not in _LAYERS_WITH_A_FUNCTION
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
    """Makes stock Keras 2 layers that stand for one operation."""
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


def _pack(structure: Any, tensors: list[Any]) -> Any:
    if structure is None:
        return tensors if len(tensors) > 1 else tensors[0]
    return keras.tree.pack_sequence_as(structure, tensors)


# --- the check -----------------------------------------------------------------------------


def _check_copy(
    source: Network, inputs_like: Any, copy: Any, invoke: Callable[..., Any], what: str
) -> None:
    """Runs the original and the copy on random inputs.

    Raises:
        AmcError: they differ; names the first layer that does.
    """
    inputs = _random_inputs(source)
    given = _pack(inputs_like, inputs)
    expected = tf.nest.flatten(source.model(given, training=False))
    received = tf.nest.flatten(copy(given, training=False))
    tolerance = _tolerance(source)
    differences = [_difference(a, b) for a, b in zip(expected, received, strict=True)]
    if max(differences) <= tolerance:
        return
    first = _first_difference(source, inputs, invoke, tolerance)
    raise AmcError(
        f"the {what} of {source.model.name!r} differs from it on random inputs, by "
        f"{max(differences):.3g} of the largest output where {tolerance:g} is allowed; {first}"
    )


def _first_difference(
    source: Network, inputs: list[Any], invoke: Callable[..., Any], tolerance: float
) -> str:
    """Runs the calls one by one on both sides; says which is the first to differ."""
    runs: list[list[Any]] = []
    for act in (lambda call, args, kwargs: call.operation(*args, **kwargs), invoke):
        run: list[Any] = []

        def recorded(call, args, kwargs, act=act, run=run):
            out = act(call, args, kwargs)
            run.append(out)
            return out

        source.run(inputs, recorded)
        runs.append(run)
    for call, *outs in zip(source.calls, *runs, strict=True):
        old, new = (tf.nest.flatten(out) for out in outs)
        difference = max(_difference(a, b) for a, b in zip(old, new, strict=True))
        if difference > tolerance:
            kind = getattr(call.operation, "symbol", None) or type(call.operation).__name__
            return (
                f"the first layer that differs is {source.name(call.operation)!r} ({kind}), by "
                f"{difference:.3g}; give another counterpart in custom_objects if it is a class "
                "or activation of yours"
            )
    return "no single layer differs, so the model's nesting is not understood"


def _tolerance(source: Network) -> float:
    narrow = ("float16", "bfloat16")
    types = {keras.backend.standardize_dtype(t.dtype) for t in source.tensors}
    return TOLERANCE_16_BIT if types & set(narrow) else TOLERANCE


def _difference(a: Any, b: Any) -> float:
    """The largest difference as a fraction of the largest value; NaN equals NaN."""
    if a.dtype == tf.string:
        return float(np.any(np.asarray(a) != np.asarray(b)))
    a, b = (np.asarray(keras.ops.convert_to_numpy(x), np.float64) for x in (a, b))
    if a.shape != b.shape:
        return float("inf")
    unequal = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not unequal.any():
        return 0.0
    finite = np.abs(a[np.isfinite(a)])
    scale = max(finite.max(initial=0.0), 1e-6)
    difference = np.abs(a - b)[unequal].max() / scale
    return float("inf") if np.isnan(difference) else float(difference)


def _random_inputs(source: Network) -> list[Any]:
    """Two samples for every input: normal numbers, or integers that its readers can look up."""
    rng = np.random.default_rng(0)
    arrays = []
    for number in source.inputs:
        tensor = source.tensors[number]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        batch, *rest = tensor.shape
        shape = (batch or 2, *(size or OPEN_SIZE for size in rest))
        readers = [call.operation for call in source.calls if number in call.inputs]
        limits = [_vocabulary(reader) for reader in readers]
        limits = [n for n in limits if n is not None]
        if dtype == "string":
            array = rng.choice(["a", "b", "c"], shape)
        elif limits or not keras.backend.is_float_dtype(dtype):
            every = limits or [_vocabulary(o) for o in source.operations()]
            limit = min((n for n in every if n is not None), default=2 if dtype == "bool" else 100)
            array = rng.integers(0, limit, shape).astype(dtype)
        else:
            array = rng.normal(size=shape).astype(dtype)
        arrays.append(tf.constant(array))
    return arrays


def _vocabulary(operation: Any) -> int | None:
    for attribute in ("input_dim", "num_tokens"):
        size = getattr(operation, attribute, None)
        if isinstance(size, int):
            return size
    return None
