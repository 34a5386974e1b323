"""What a layer computes, as far as refit, batch norm folding and linear paths need to know.

Each row of the layer table holds one `LayerKind`. Code that treats linear, affine or rectifying
layers specially reads it from the row, so that it treats layers that users register in the same
way.
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
    """A description of a layer that computes activation(x W + b) at every output position.

    The bias b is the weight named `bias`, if the layer has one; the activation is the layer's
    attribute `activation`.

    Attributes:
        kernel: name of the weight W.
        outputs: axes of the kernel that together, in this order, index the outputs.
        reads: content of a row x. `positions`: the channels at one position. `windows`: the
            channels under the kernel (given by the attributes `kernel_size`, `strides`,
            `padding` and `dilation_rate`). `depthwise`: the channels at one position after a
            depthwise convolution by `depthwise_kernel`. `flattened`: all positions of the last
            axes, as many as the kernel has before its own last one, in row-major order. None: the
            kernel is not refitted by least squares.
    """

    kernel: str = "kernel"
    outputs: tuple[int, ...] = (-1,)
    reads: Literal["positions", "windows", "depthwise", "flattened"] | None = None


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """A description of what a layer computes; by default nothing is known.

    Attributes:
        product: description of the product with a kernel that the layer computes; None if it
            computes none.
        batch_norm: whether it is a batch norm, with weights named `gamma`, `beta`, `moving_mean`
            and `moving_variance` (or some of them) and an attribute `epsilon`.
        affine: whether it computes y -> a y + b in each channel when it reads one tensor and is
            in inference mode; a function of the call if that depends on the call.
        sums: whether it computes a weighted sum of its input tensors when it reads several.
        scales: whether the TFLite converter would fold its factors, when it reads one tensor,
            into the weights before or after it.
        clips: range to which it clips, if it is a rectifier; a function of the operation if
            that depends on the operation.
    """

    product: Product | None = None
    batch_norm: bool = False
    affine: bool | Callable[[Call], bool] = False
    sums: bool = False
    scales: bool = False
    clips: Bounds | Callable[[Any], Bounds] = UNBOUNDED

    def is_affine(self, call: Call) -> bool:
        """Returns whether a call that reads one tensor computes y -> a y + b in each channel."""
        return self.affine(call) if callable(self.affine) else self.affine

    def bounds(self, operation: Any) -> Bounds:
        """Returns the range to which an operation clips; all numbers if it is no rectifier."""
        return self.clips(operation) if callable(self.clips) else self.clips


UNKNOWN = LayerKind()
