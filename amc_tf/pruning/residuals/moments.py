"""Mean and variance of what blocks read and add up.

Batch norms that carry a block's input have these statistics, so that they leave it as it is when
the network is trained, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.graph.keras_structure import infer
from amc_tf.graph.network import Network
from amc_tf.pruning.residuals.images import Maps
from amc_tf.pruning.residuals.plan import Fold
from amc_tf.pruning.weights import numpy_of

MeanAndVariance = tuple[np.ndarray, np.ndarray]
_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Means and variances for each channel.

    Attributes:
        whole: of the block's input x.
        positive: of max(x, 0).
        negative: of max(-x, 0).
        sum: of what the block adds up.
    """

    whole: MeanAndVariance
    positive: MeanAndVariance
    negative: MeanAndVariance
    sum: MeanAndVariance

    def carried(self, copies: int, rectified: bool) -> MeanAndVariance:
        """Returns those of the channels that carry the input."""
        mean, variance = self.whole
        parts = [self.whole, (-mean, variance)]
        if copies == 2 and rectified:
            parts = [self.positive, self.negative]
        means, variances = zip(*parts[:copies], strict=True)
        return np.concatenate(means), np.concatenate(variances)


def measured(
    network: Network, folds: Sequence[Fold], inputs: Sequence[np.ndarray] | None
) -> list[Moments]:
    """Measures the moments of the blocks that are folded.

    Args:
        network: the network.
        folds: its blocks; the input of each is measured where the block's shortcut reads it.
        inputs: one array for each input of the network; None: means are 0, variances 1.
    """
    read = [_Sums(network, fold.block.fork, fold.shortcut.maps) for fold in folds]
    made = [_Sums(network, fold.block.add.outputs[0]) for fold in folds]
    of_value: dict[int, list[_Sums]] = {}
    for sums in (*read, *made):
        of_value.setdefault(sums.number, []).append(sums)

    def count(number: int, tensor: Any) -> None:
        for sums in of_value.get(number, ()):
            sums.add(numpy_of(tensor))

    def invoke(call, args, kwargs):
        output = infer(call.operation, args, kwargs)
        for number, tensor in zip(call.outputs, keras.tree.flatten(output), strict=True):
            count(number, tensor)
        return output

    if inputs is not None and folds:
        for start in range(0, len(inputs[0]), _AT_ONCE):
            given = [
                np.asarray(array[start : start + _AT_ONCE], tensor.dtype)
                for array, tensor in zip(inputs, network.model.inputs, strict=True)
            ]
            for number, array in zip(network.inputs, given, strict=True):
                count(number, array)
            network.run(given, invoke)
    return [Moments(*x.parts, y.parts[0]) for x, y in zip(read, made, strict=True)]


class _Sums:
    """Sums over positions of x, max(x, 0) and max(-x, 0), and of their squares."""

    def __init__(self, network: Network, number: int, maps: Maps | None = None):
        shape = network.tensors[number].shape
        self.number = number
        # Where sizes are open, blocks that read some positions alone are not folded.
        self._maps = () if maps is None or None in shape[1:] else maps
        self._count = 0
        self._sums = np.zeros((3, 2, shape[-1]))

    def add(self, x: np.ndarray) -> None:
        for axis, positions in enumerate(self._maps, 1):
            x = np.take(x, positions, axis)
        rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
        self._count += len(rows)
        for i, part in enumerate((rows, np.maximum(rows, 0), np.maximum(-rows, 0))):
            self._sums[i] += part.sum(0), np.square(part).sum(0)

    @property
    def parts(self) -> tuple[MeanAndVariance, MeanAndVariance, MeanAndVariance]:
        """The means and variances of the three."""
        if not self._count:
            means, squares = np.zeros_like(self._sums[:, 0]), np.ones_like(self._sums[:, 0])
        else:
            means, squares = np.moveaxis(self._sums / self._count, 1, 0)
        variances = np.maximum(squares - means**2, 0)
        whole, positive, negative = zip(means, variances, strict=True)
        return whole, positive, negative
