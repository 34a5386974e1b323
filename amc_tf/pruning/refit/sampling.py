"""The rows that a layer multiplies by its kernel, at sampled output positions.

A convolution or a Dense is y = x W for every position of its output, where x
is the window under the kernel. Least squares needs only some of these rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.graph.layer_table import kind_of


def choose(available: int, images: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Draws distinct positions for each image, int (images, min(wanted, available))."""
    if wanted >= available:
        return np.tile(np.arange(available), (images, 1))
    return np.argsort(rng.random((images, available)), axis=1)[:, :wanted]


def at_positions(x: Any, chosen: np.ndarray) -> np.ndarray:
    """Takes a tensor's channel vectors at chosen positions.

    Args:
        x: tensor (images, *spatial, channels).
        chosen: positions, row-major over the spatial axes, int (images, positions).

    Returns:
        Float32 (images * positions, channels).
    """
    x = np.asarray(x, np.float32)
    each = math.prod(x.shape[1:-1])
    at = np.arange(len(x))[:, None] * each + chosen
    return np.take(x.reshape(-1, x.shape[-1]), at.ravel(), axis=0)


def linear_inputs(
    layer: Any, x: Any, chosen: np.ndarray, depthwise_kernel: Any = None
) -> np.ndarray:
    """Computes the rows that a layer multiplies by its kernel at chosen output positions.

    Args:
        layer: a layer whose row says that it is a `Product` that least squares can refit.
        x: the layer's input (images, *spatial, channels).
        chosen: output positions, row-major, int (images, positions).
        depthwise_kernel: takes the place of the kernel of a layer that is depthwise first.

    Returns:
        Float32 (images * positions, features), features in the order of the
        kernel: its positions first, channels innermost.
    """
    product = kind_of(layer).product
    reads = None if product is None else product.reads
    if reads == "depthwise":
        kernel = layer.depthwise_kernel if depthwise_kernel is None else depthwise_kernel
        x = keras.ops.depthwise_conv(
            x, kernel, layer.strides, layer.padding, None, layer.dilation_rate
        )
    if reads == "flattened":
        x = np.asarray(x, np.float32)
        x = x.reshape(*x.shape[: x.ndim + 1 - len(layer.kernel.shape)], -1)
    if reads != "windows":
        return at_positions(x, chosen)
    x = np.asarray(x, np.float32)
    return windows(x, layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate, chosen)


def windows(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    chosen: np.ndarray,
) -> np.ndarray:
    """Copies the windows that a convolution reads at chosen output positions.

    Args:
        x: input (images, *spatial, channels).
        kernel: window size along each spatial axis.
        strides: step along each spatial axis.
        padding: `valid`, `same` or `causal` (TensorFlow's rule for odd remainders).
        dilation: spacing of the taps along each spatial axis.
        chosen: output positions, row-major, int (images, positions).

    Returns:
        Float32 (images * positions, prod(kernel) * channels), channels innermost.
    """
    spatial, rank = x.shape[1:-1], x.ndim - 2
    before, outputs = [], []
    for size, k, s, d in zip(spatial, kernel, strides, dilation, strict=True):
        reach = (k - 1) * d
        outputs.append((size - reach - 1) // s + 1 if padding == "valid" else -(-size // s))
        needed = max(0, (outputs[-1] - 1) * s + reach + 1 - size)
        before.append({"valid": 0, "causal": reach, "same": needed // 2}[padding])
    # Row numbers of `x` as a matrix of channel vectors, so that only the wanted windows are copied.
    row = np.arange(len(x)).reshape(-1, 1, *[1] * rank)
    inside = np.ones((), bool)
    for axis, position in enumerate(np.unravel_index(chosen, outputs)):
        taps = np.arange(kernel[axis]) * dilation[axis] - before[axis]
        taps = taps.reshape([-1 if i == axis else 1 for i in range(rank)])
        at = (position * strides[axis]).reshape(*chosen.shape, *[1] * rank) + taps
        inside = inside & (at >= 0) & (at < spatial[axis])
        row = row * spatial[axis] + at
    result = np.take(x.reshape(-1, x.shape[-1]), np.where(inside, row, 0), axis=0)
    if not inside.all():
        result[np.broadcast_to(~inside, row.shape)] = 0
    return result.reshape(chosen.size, math.prod(kernel) * x.shape[-1])
