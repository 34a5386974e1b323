"""Checking that a registered layer computes what its row of the layer table says.

The built-in layers are known to do so. A layer that `amc_tf.register_layer` added is tried on a
few rows of noise: if it computes something else, a refit would make it wrong without an error.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from amc_tf.graph.keras_structure import infer
from amc_tf.graph.layer_kinds import Product
from amc_tf.graph.layer_table import is_registered
from amc_tf.graph.network import Call, Network, Value
from amc_tf.pruning.refit.sampling import at_positions, choose, linear_inputs
from amc_tf.pruning.weights import has_weight, named_weight, numpy_of

_OPEN_SIZE = 32  # where the model leaves a size open
_POSITIONS = 16  # positions of an output that are compared
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 5e-2  # relative to the largest value


def broken_product(network: Network, call: Call, product: Product) -> str | None:
    """Returns why a registered layer is not the product that its row says; None if it is."""
    layer = call.operation
    if not is_registered(layer):
        return None
    if not has_weight(layer, product.kernel):
        return f"its row says that its kernel is named {product.kernel!r}, but no weight is"
    noise = _noise(network, call)
    x, y = noise[call.inputs[0]], _run(call, noise)
    chosen = choose(int(np.prod(y.shape[1:-1])), len(x), _POSITIONS, np.random.default_rng(0))
    try:
        rows = linear_inputs(layer, x, chosen)
    except AttributeError as error:
        return f"its row says that it reads {product.reads}, but it has no {error.name!r}"
    kernel = numpy_of(named_weight(layer, product.kernel)).astype(np.float32)
    kernel = kernel.reshape(-1, kernel.shape[-1])
    if rows.shape[1] != len(kernel):
        return (
            f"its row says that it reads {product.reads}, which gives {rows.shape[1]} features, "
            f"but its kernel has {len(kernel)}"
        )
    expected = rows @ kernel
    if has_weight(layer, "bias"):
        expected = expected + numpy_of(named_weight(layer, "bias")).astype(np.float32)
    activation = getattr(layer, "activation", None)
    if activation is not None:
        expected = np.asarray(keras.ops.convert_to_numpy(activation(expected)))
    if _alike(layer, at_positions(y, chosen), expected):
        return None
    return "its row says that it computes activation(x W + b), but it computes something else"


def broken_batch_norm(network: Network, call: Call) -> str | None:
    """Returns why a registered layer is not the batch norm that its row says; None if it is."""
    layer = call.operation
    if not is_registered(layer):
        return None
    if not hasattr(layer, "epsilon"):
        return "its row says that it is a batch norm, but it has no 'epsilon'"

    def weight(name: str, default: float) -> Any:
        return numpy_of(named_weight(layer, name)) if has_weight(layer, name) else default

    noise = _noise(network, call)
    x = noise[call.inputs[0]]
    scale = weight("gamma", 1.0) / np.sqrt(weight("moving_variance", 1.0) + layer.epsilon)
    expected = (np.asarray(x) - weight("moving_mean", 0.0)) * scale + weight("beta", 0.0)
    if _alike(layer, numpy_of(_run(call, noise)), expected):
        return None
    return "its row says that it is a batch norm, but it computes something else"


def broken_affine(network: Network, call: Call) -> str | None:
    """Returns why a registered layer is not affine, as its row says; None if it is."""
    layer = call.operation
    if not is_registered(layer):
        return None
    noise = _noise(network, call)
    zeros = {number: keras.ops.zeros_like(x) for number, x in noise.items()}

    def at(values: dict[int, Any]) -> np.ndarray:
        return np.asarray(numpy_of(_run(call, values)), np.float32)

    # From one input at a time and its bias, what the layer should make of noise of both signs.
    bias = at(zeros)
    expected, received = bias, at(noise)
    same_everywhere = _alike(layer, bias, _mean(bias))
    for number, x in noise.items():
        slope = at({**zeros, number: keras.ops.ones_like(x)}) - bias
        same_everywhere &= _alike(layer, slope, _mean(slope))
        if x.shape != bias.shape:
            return "its row says that it is affine, but its input and output differ in shape"
        expected = expected + slope * np.asarray(x, np.float32)
    if same_everywhere and _alike(layer, received, expected):
        return None
    return "its row says that it is affine in each channel, alike at all positions, but it is not"


def _mean(x: np.ndarray) -> np.ndarray:
    """Returns the mean of each channel, at every position."""
    return np.broadcast_to(x.mean(axis=tuple(range(x.ndim - 1)), keepdims=True), x.shape)


def _run(call: Call, values: dict[int, Any]) -> Any:
    """Runs a call with other tensors, and what else it is given."""
    args, kwargs = keras.tree.map_structure(
        lambda x: values[x.number] if isinstance(x, Value) else x, (call.args, call.kwargs)
    )
    return infer(call.operation, args, kwargs)


def _noise(network: Network, call: Call) -> dict[int, Any]:
    """Returns noise in the shape of each tensor that a call reads, by its number."""
    found = {}
    for number in call.inputs:
        tensor = network.tensors[number]
        shape = [2, *(_OPEN_SIZE if size is None else size for size in tensor.shape[1:])]
        values = np.random.default_rng(number).normal(size=shape)
        found[number] = keras.ops.cast(values, tensor.dtype)
    return found


def _alike(layer: Any, received: np.ndarray, expected: np.ndarray) -> bool:
    if received.shape != expected.shape:
        return False
    half = getattr(layer, "compute_dtype", "") in ("float16", "bfloat16")
    received, expected = (np.asarray(a, np.float64) for a in (received, expected))
    allowed = (_HALF_TOLERANCE if half else _TOLERANCE) * np.abs(expected).max(initial=0)
    return bool(np.abs(received - expected).max(initial=0) <= allowed)
