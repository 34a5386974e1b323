"""Whether the calls that were found in a layer are all that it does."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from typing import Any

import keras
import numpy as np

from amc_tf.errors import first_line
from amc_tf.graph.inside import Closed, Inside, given, is_array, is_symbol, run
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.output_specs import tensors_of

_BATCHES = 2, 144  # the larger one for code whose batch is a number of windows
_OPEN_SIZE = 32  # large enough for strides and windows
# Greatest difference, of the greatest value, by the bits of a float.
_TOLERANCES = {16: 2e-2, 32: 1e-4, 64: 1e-4}
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)


def check_inside(
    layer: Any, args: tuple, kwargs: dict[str, Any], inside: Inside, training: Inside
) -> None:
    """Checks that a network may hold a layer's calls in the place of the layer.

    Args:
        layer: the layer.
        args: positional arguments of its call, with a symbolic tensor in the place of each tensor.
        kwargs: keyword arguments, likewise.
        inside: its calls in inference.
        training: its calls in training.

    Raises:
        Closed: they are not all that it does.
    """
    _require_no_losses(layer)
    if any(map(_calls_functions, inside.steps)):
        raise Closed("its operations call functions of their own (a loop or a branch)")
    if any(isinstance(x, keras.Variable) for step in inside.steps for x in given(step)):
        raise Closed("it reads a weight of one of its layers itself")
    # Where it says nothing of it, a layer has what its surroundings have.
    trained = all(_arguments(step).get("training", True) for step in training.steps)
    if not trained or any(_arguments(step).get("training") for step in inside.steps):
        raise Closed("it fixes whether one of its layers is trained")
    if _signature(inside) != _signature(training):
        raise Closed("it does something else in training")
    _require_weights(layer, inside)
    _require_dtypes(layer, inside)
    _require_same(layer, args, kwargs, inside)


def _require_no_losses(layer: Any) -> None:
    if layer.activity_regularizer is not None:
        raise Closed("it has an activity_regularizer")


def _calls_functions(step: Any) -> bool:
    """Returns whether an operation is given functions, in which tensors may be hidden."""
    own = () if isinstance(step.operation, keras.Layer) else vars(step.operation).values()
    return any(isinstance(x, _FUNCTIONS) for x in (*given(step), *own))


def _arguments(step: Any) -> dict[str, Any]:
    """Returns the arguments of a call by name; of an operation that is no layer, none."""
    if not isinstance(step.operation, keras.Layer):
        return {}
    signature = inspect.signature(type(step.operation).call)
    # In training, Keras records `training` of layers that do not take it, too.
    told = step.arguments.kwargs
    if "training" not in signature.parameters:
        told = {key: value for key, value in told.items() if key != "training"}
    return dict(signature.bind_partial(None, *step.arguments.args, **told).arguments)


def _signature(inside: Inside) -> list[Any]:
    """Returns all that tells two runs apart: operations, their settings and their arguments."""
    sources = [*inside.inputs, *(symbol for symbol, _ in inside.parameters)]
    numbers = {id(x): n for n, x in enumerate(sources)}
    found: list[Any] = [[parameter.name for _, parameter in inside.parameters]]

    def token(x: Any) -> Any:
        if is_symbol(x):
            return "tensor", numbers[id(x)]
        if is_array(x):
            array = np.asarray(x)
            return array.shape, hashlib.sha256(array.tobytes()).hexdigest()
        return repr(x)

    for step in inside.steps:
        operation = step.operation
        if isinstance(operation, keras.Layer):
            told = {k: v for k, v in _arguments(step).items() if k not in ("self", "training")}
            found.append((_identity(operation), *map(token, keras.tree.flatten(told))))
        else:
            settings = {k: v for k, v in vars(operation).items() if k[0] != "_" and k != "name"}
            flat = keras.tree.flatten((settings, step.arguments.args, step.arguments.kwargs))
            found.append((type(operation), *map(token, flat)))
        for tensor in step.outputs:
            numbers[id(tensor)] = len(numbers)
    found.append([token(x) for x in inside.outputs])
    return found


def _identity(layer: Any) -> Any:
    """Returns what tells layers apart; one without weights may be made anew in each call."""
    if layer.variables or type(layer).__module__.split(".")[0] != "keras":
        return id(layer)
    try:
        settings = {key: value for key, value in layer.get_config().items() if key != "name"}
    except Exception:  # Keras cannot tell all arguments
        return id(layer)
    return type(layer), repr(settings)


def _require_weights(layer: Any, inside: Inside) -> None:
    """Checks that every weight of a layer is one of its calls', which carry it on."""
    held = _held(inside)
    own = {id(parameter.value): parameter.value for _, parameter in inside.parameters}
    if len(own) < len(inside.parameters) or held.intersection(own):
        raise Closed("it reads a weight in several ways")
    for weight in own.values():
        if weight.regularizer is not None or weight.constraint is not None:
            raise Closed(f"its weight {weight.path!r} has a regularizer or a constraint")


def _held(inside: Inside) -> set[int]:
    """Returns the `id` of each weight of the layers that are called."""
    of_calls = [s.operation for s in inside.steps if isinstance(s.operation, keras.Layer)]
    return {id(weight) for operation in of_calls for weight in operation.weights}


def unread_weights(layer: Any, inside: Inside) -> list[str]:
    """Returns the paths of a layer's weights that none of its calls reads."""
    read = _held(inside) | {id(parameter.value) for _, parameter in inside.parameters}
    return [weight.path for weight in layer.weights if id(weight) not in read]


def _require_dtypes(layer: Any, inside: Inside) -> None:
    """Checks that the layer casts none of its inputs, as its calls would not."""
    for tensor in inside.inputs:
        cast = layer.autocast and tensor.dtype != layer.compute_dtype
        if cast and keras.backend.is_float_dtype(tensor.dtype):
            raise Closed(f"it casts its input from {tensor.dtype} to {layer.compute_dtype}")


def _require_same(layer: Any, args: tuple, kwargs: dict[str, Any], inside: Inside) -> None:
    """Checks on random inputs that the calls compute what the layer computes."""
    failed = Exception()
    for batch in _BATCHES:
        try:
            expected, received = _both(layer, args, kwargs, inside, batch)
            break
        except Exception as error:
            failed = error
    else:
        raise Closed(
            f"it cannot be compared with its calls on random inputs ({first_line(failed)})"
        ) from failed
    for a, b in zip(expected, received, strict=True):
        if b is not None and (a.dtype != b.dtype or a.shape != b.shape or not _close(a, b)):
            raise Closed("its calls do not compute what it computes")


def _both(
    layer: Any, args: tuple, kwargs: dict[str, Any], inside: Inside, batch: int
) -> tuple[list[Any], list[Any]]:
    """Returns what a layer and its calls compute of random inputs."""
    rng = np.random.default_rng(0)
    args, kwargs = keras.tree.map_structure(
        lambda x: _random(x, rng, batch) if is_symbol(x) else x, (args, kwargs)
    )
    tensors = [x for x in keras.tree.flatten((args, kwargs)) if is_array(x)]
    with keras.StatelessScope():  # weights that a call changes stay as they are
        expected = tensors_of(infer(layer, args, kwargs))
        return expected, run(inside, tensors[: len(inside.inputs)], infer)


def _close(a: Any, b: Any) -> bool:
    dtype = keras.backend.standardize_dtype(a.dtype)
    a, b = (np.asarray(keras.ops.cast(x, "float64")) for x in (a, b))
    if not keras.backend.is_float_dtype(dtype):
        return bool((a == b).all())
    greatest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    atol = _TOLERANCES[int(dtype[-2:])] * greatest
    return bool(np.allclose(a, b, rtol=0.0, atol=atol, equal_nan=True))


def _random(tensor: Any, rng: np.random.Generator, batch: int) -> Any:
    shape = [batch if tensor.shape[0] is None else tensor.shape[0]]
    shape += [_OPEN_SIZE if size is None else size for size in tensor.shape[1:]]
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    is_float = keras.backend.is_float_dtype(dtype)
    values = rng.normal(size=shape) if is_float else rng.integers(0, 2, shape)
    return keras.ops.cast(values, dtype)
