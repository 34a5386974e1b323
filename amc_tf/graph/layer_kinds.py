"""What a layer computes, as far as refit, batch norm folding and linear paths ask.

Each row of the layer table holds one `LayerKind`. Whoever treats linear, affine or rectifying
layers in a way of their own reads the row, so that a layer that is taught to the table is treated
likewise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

from amc_tf.graph.network import Call

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-math.inf, math.inf)
RECTIFIED: Bounds = (0.0, math.inf)


@dataclasses.dataclass(frozen=True)
class Product:
    """A layer that computes activation(x W + b) at every position of its output.

    The bias is its weight named `bias`, if it has one; the activation its attribute `activation`.

    Attributes:
        kernel: the name of the weight W.
        outputs: the axes of the kernel that together, in this order, count the outputs.
        reads: what a row x holds: the channels at one position (`positions`); those under the
            kernel (`windows`, given by the attributes `kernel_size`, `strides`, `padding` and
            `dilation_rate`); or those at one position behind a depthwise convolution by
            `depthwise_kernel` (`depthwise`). None for a kernel that least squares leaves alone.
    """

    kernel: str = "kernel"
    outputs: tuple[int, ...] = (-1,)
    reads: Literal["positions", "windows", "depthwise"] | None = None


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What a layer computes; by default nothing that is known.

    Attributes:
        product: the product with a kernel that it is, if it is one.
        batch_norm: whether it is a batch norm, with weights named `gamma`, `beta`, `moving_mean`
            and `moving_variance` (or some of them) and an attribute `epsilon`.
        affine: whether it is y -> a y + b in each channel when it reads one tensor and does not
            train; a function where that depends on the call.
        sums: whether it is a weighted sum of the tensors it reads, if these are several.
        scales: whether the TFLite converter would work its factors, when it reads one tensor,
            into the weights before or behind it.
        clips: the range to which it clips, being a rectifier; a function where that depends on
            the operation.
    """

    product: Product | None = None
    batch_norm: bool = False
    affine: bool | Callable[[Call], bool] = False
    sums: bool = False
    scales: bool = False
    clips: Bounds | Callable[[Any], Bounds] = UNBOUNDED

    def is_affine(self, call: Call) -> bool:
        """Whether a call that reads one tensor is y -> a y + b in each channel."""
        return self.affine(call) if callable(self.affine) else self.affine

    def bounds(self, operation: Any) -> Bounds:
        """The range to which an operation clips; all numbers if it is no rectifier."""
        return self.clips(operation) if callable(self.clips) else self.clips


UNKNOWN = LayerKind()
