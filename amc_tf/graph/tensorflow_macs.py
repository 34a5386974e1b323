"""MACs of TensorFlow operations, by the shapes of their tensors.

Convolutions, transposed convolutions and matrix products are counted. Everything else counts as
zero, as in published figures: elementwise operations (a product written as a multiplication and a
sum among them), pooling, resizing, reductions and movement of data. `is_uncounted` names what does
products of its own that no row here counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import tensorflow as tf

# Linear algebra, transforms, fused recurrent layers and code that TensorFlow cannot look into.
_UNCOUNTED = re.compile(
    r"Conv|Mat[Mm]ul|Einsum|Dot|^(Batch)?Matrix(?!Diag|SetDiag|BandPart)|Tridiagonal.*|Cholesky|Svd"
    r"|Qr$|Lu$|Eig|FFT|Solve|RNN|LSTM|GRU|PyFunc|Xla|SymbolicGradient|MapDefun|RemoteCall|^For$"
)


def macs_of(operation: tf.Operation) -> int | None:
    """Returns the MACs of an operation that `COUNTED` names; None if a size is not known."""
    try:
        return COUNTED[operation.type](operation)
    except (TypeError, ValueError):  # an unknown size is None, an unknown rank has no sizes
        return None


def is_uncounted(kind: str) -> bool:
    """Returns whether a type of operation that `COUNTED` does not name may do products.

    Types that TensorFlow itself does not have come from somebody's library, and may do anything.
    """
    return bool(_UNCOUNTED.search(kind)) or not hasattr(tf.raw_ops, kind)


def _size(tensor: tf.Tensor) -> int:
    return math.prod(tensor.shape)


def _convolution(operation: tf.Operation) -> int:
    """Multiplies each output by the kernel's positions and by the input channels of its group."""
    taps = math.prod(operation.inputs[1].shape[:-1])
    return _size(_cropped(operation.outputs[0])) * taps


def _depthwise(operation: tf.Operation) -> int:
    return _size(_cropped(operation.outputs[0])) * math.prod(operation.inputs[1].shape[:2])


def _cropped(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the output of a dilated convolution, which TensorFlow may pad and fold into blocks.

    TFLite folds this back into one convolution.
    """
    readers = tensor.consumers()
    unfolded = len(readers) == 1 and readers[0].type == "BatchToSpaceND"
    return readers[0].outputs[0] if unfolded else tensor


def _transposed(operation: tf.Operation) -> int:
    """Multiplies each input by the kernel's positions and output channels."""
    return _size(operation.inputs[2]) * math.prod(operation.inputs[1].shape[:-1])


def _transposed_depthwise(operation: tf.Operation) -> int:
    return _size(operation.inputs[2]) * math.prod(operation.inputs[1].shape[:2])


def _product(transposed: str) -> Callable[[tf.Operation], int]:
    def count(operation: tf.Operation) -> int:
        summed = operation.inputs[0].shape[-2 if operation.get_attr(transposed) else -1]
        return _size(operation.outputs[0]) * summed

    return count


def _einsum(operation: tf.Operation) -> int:
    """Multiplies the sizes of all axes of two operands; one operand is summed or moved only."""
    operands, _ = operation.get_attr("equation").decode().split("->")
    sizes: dict[str, int] = {}
    for labels, tensor in zip(operands.split(","), operation.inputs, strict=True):
        before, _, after = labels.partition("...")
        free = len(tensor.shape) - len(before) - len(after)
        names = [*before, *(f"...{free - i}" for i in range(free)), *after]
        for name, size in zip(names, tensor.shape, strict=True):
            sizes[name] = max(sizes.get(name, 1), size)  # an axis of the ellipsis may be broadcast
    return math.prod(sizes.values()) if len(operation.inputs) > 1 else 0


def _cudnn(operation: tf.Operation) -> int:
    """Multiplies the input and the state by the kernels of all gates at every time step."""
    x, state = operation.inputs[0].shape, operation.inputs[1].shape
    gates = {b"lstm": 4, b"gru": 3}.get(operation.get_attr("rnn_mode"), 1)
    layers, width = state[0], state[-1]
    if layers != 1:
        raise ValueError("Keras makes one layer in one direction")
    return x[0] * x[1] * gates * width * (x[2] + width)


COUNTED: Mapping[str, Callable[[tf.Operation], int]] = {
    "MatMul": _product("transpose_a"),
    "BatchMatMul": _product("adj_x"),
    "BatchMatMulV2": _product("adj_x"),
    "BatchMatMulV3": _product("adj_x"),
    "Einsum": _einsum,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
    "DepthwiseConv2dNativeBackpropInput": _transposed_depthwise,
    "CudnnRNN": _cudnn,
    "CudnnRNNV2": _cudnn,
    "CudnnRNNV3": _cudnn,
}
