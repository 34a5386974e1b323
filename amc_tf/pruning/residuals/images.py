"""Which position of an image each position of another holds.

An *axis map* has one number for each position along a spatial axis: the position of the block's
input that is there, or `OUTSIDE`. By these maps a block's carried input is led to the places where
its shortcut has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from amc_tf.pruning.residuals.blocks import Unfoldable

OUTSIDE = -1
# Where a size is open: any size larger than all kernels tells the same, as strides are refused.
_STAND_IN = 64

Maps = list[np.ndarray]


def whole(shape: Sequence[int | None]) -> Maps:
    """Returns the maps of an image (batch, ..., channels) that holds itself."""
    return [np.arange(_STAND_IN if size is None else size) for size in shape[1:-1]]


def padded(maps: Maps, padding: Sequence[tuple[int, int]]) -> Maps:
    """Returns the maps behind zero padding (before, after) of each axis."""
    return [
        np.pad(m, width, constant_values=OUTSIDE) for m, width in zip(maps, padding, strict=True)
    ]


def through_kernel(
    maps: Maps, layer: Any, sizes: Sequence[int], shape: Sequence[int | None]
) -> tuple[Maps, tuple[int, ...]]:
    """Leads an image through a convolution by a kernel that has a one at one place.

    The place is the one that leaves the image where it is, or moves it least.

    Args:
        maps: the maps of what the layer reads.
        layer: the convolution or Dense layer.
        sizes: spatial sizes of its kernel; none for a Dense layer.
        shape: shape of what it reads.

    Returns:
        The maps of what it writes, and the place in the kernel along each axis.

    Raises:
        Unfoldable: the place depends on a size that is open.
    """
    if not sizes:
        return maps, ()
    found, places = [], []
    for axis, (m, size) in enumerate(zip(maps, sizes, strict=True)):
        stride, dilation = layer.strides[axis], layer.dilation_rate[axis]
        reach = (size - 1) * dilation + 1
        if shape[1 + axis] is None and stride > 1:
            raise Unfoldable("the network's input has open sizes, and the block has strides")
        if layer.padding == "same":
            total = max((-(-len(m) // stride) - 1) * stride + reach - len(m), 0)
            m = np.pad(m, (total // 2, total - total // 2), constant_values=OUTSIDE)
        elif layer.padding != "valid":
            raise Unfoldable(f"its padding {layer.padding!r} is not followed")
        count = (len(m) - reach) // stride + 1
        read = [m[t * dilation :][: (count - 1) * stride + 1 : stride] for t in range(size)]
        place = min(range(size), key=lambda t: (_moved(read[t]), t))
        found.append(read[place])
        places.append(place)
    return found, tuple(places)


def _moved(m: np.ndarray) -> float:
    """Returns by how far an image is moved: its origin, from the place where it would be."""
    inside = np.flatnonzero(m != OUTSIDE)
    if len(inside) == 0:
        return np.inf
    first = inside[0]
    step = m[inside[1]] - m[first] if len(inside) > 1 else 0
    return abs(float(m[first] - step * first))


def same(a: Maps, b: Maps) -> bool:
    """Returns whether two images hold the same positions everywhere."""
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
