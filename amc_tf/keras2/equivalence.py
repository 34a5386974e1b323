"""Whether a converted model computes what the original does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.graph.keras_structure import pack
from amc_tf.graph.network import Network

# Largest allowed difference of an output, as a fraction of its largest value: in another order of
# operations, float rounding adds up over a hundred layers, and faster in 16 bits.
TOLERANCE = 1e-4

TOLERANCE_16_BIT = 5e-2

# Used for a size that an input leaves open. Common networks halve a side five times.
OPEN_SIZE = 32


def check_copy(
    source: Network, inputs_like: Any, copy: Any, invoke: Callable[..., Any], what: str
) -> None:
    """Compares the original and the copy on random inputs.

    Args:
        source: the original as a flat list of calls.
        inputs_like: structure in which the inputs are nested.
        copy: the copy, a model of the other version of Keras.
        invoke: function that runs a call of `source` with the layers of the copy.
        what: name of the copy in the error message.

    Raises:
        AmcError: the outputs differ; the message names the first layer that differs.
    """
    inputs = _random_inputs(source)
    given = pack(inputs_like, inputs)
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
    """Runs the calls one by one in both models; returns a message about the first difference."""
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
    """Returns the largest difference as a fraction of the largest value; NaN equals NaN."""
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
    """Draws two samples for every input: normal numbers, or integers its readers can look up."""
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
