"""Checking that a registered layer computes what its row of the layer table says.

The built-in layers are known to do so. A layer that `amc_tf.register_layer` added is tried on a
few rows of noise: if it computes something else, a refit would make it wrong without an error.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from amc_tf.graph.layer_kinds import Product
from amc_tf.graph.layer_table import is_registered
from amc_tf.graph.network import Call, Network, Value, infer
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
    x = _noise(network, call.inputs[0])
    y = infer(layer, (x,), {})
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

    x = _noise(network, call.inputs[0])
    scale = weight("gamma", 1.0) / np.sqrt(weight("moving_variance", 1.0) + layer.epsilon)
    expected = (np.asarray(x) - weight("moving_mean", 0.0)) * scale + weight("beta", 0.0)
    if _alike(layer, numpy_of(infer(layer, (x,), {})), expected):
        return None
    return "its row says that it is a batch norm, but it computes something else"


def broken_affine(network: Network, call: Call) -> str | None:
    """Returns why a registered layer is not affine, as its row says; None if it is."""
    layer = call.operation
    if not is_registered(layer):
        return None
    noise = {n: _noise(network, n) for n in call.inputs}

    def at(factor: float) -> np.ndarray:
        args, kwargs = keras.tree.map_structure(
            lambda x: factor * noise[x.number] if isinstance(x, Value) else x,
            (call.args, call.kwargs),
        )
        return np.asarray(numpy_of(infer(layer, args, kwargs)), np.float32)

    # Both signs, as a rectifier is affine within each.
    if _alike(layer, at(2.0) + at(-1.0), at(1.0) + at(0.0)):
        return None
    return "its row says that it is affine, but it is not"


def _noise(network: Network, number: int) -> Any:
    tensor = network.tensors[number]
    shape = [2, *(_OPEN_SIZE if size is None else size for size in tensor.shape[1:])]
    return keras.ops.cast(np.random.default_rng(number).normal(size=shape), tensor.dtype)


def _alike(layer: Any, received: np.ndarray, expected: np.ndarray) -> bool:
    if received.shape != expected.shape:
        return False
    half = getattr(layer, "compute_dtype", "") in ("float16", "bfloat16")
    received, expected = (np.asarray(a, np.float64) for a in (received, expected))
    allowed = (_HALF_TOLERANCE if half else _TOLERANCE) * np.abs(expected).max(initial=0)
    return bool(np.abs(received - expected).max(initial=0) <= allowed)
