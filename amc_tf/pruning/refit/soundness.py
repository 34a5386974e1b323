"""Refits that cannot be trusted: one sample that outweighs all others, and absurd solutions."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import keras
import numpy as np

from amc_tf.errors import AmcError

_LOG = logging.getLogger(__name__)

# Least squares weighs a sample by the square of its size: beyond this factor above the median, one
# among a million others would still be half of the sum.
_MOST_ABOVE_OTHERS = 1e3
# A refit replaces the pruned channels by those that are left, which changes the size of a kernel
# by a small factor; weights ten thousand times as large come of numbers beyond float32's reach.
_MOST_GROWTH = 1e4


def check_samples(images: Sequence[np.ndarray], model: keras.Model) -> None:
    """Refuses calibration inputs of which one sample would decide a refit alone.

    Args:
        images: one array (samples, ...) for each model input.
        model: the model, for the names of its inputs.

    Raises:
        AmcError: a sample is not finite, or far larger than the others; the message names it.
    """
    for array, tensor in zip(images, model.inputs, strict=True):
        if array.dtype.kind != "f" or not array.size:
            continue
        # In pieces, as the whole may be large; not a number wins, so that it is found.
        sizes = np.array([float(np.abs(sample).max()) for sample in array])
        bad = int(np.argmax(np.where(np.isnan(sizes), np.inf, sizes)))
        usual = float(np.median(sizes[sizes > 0])) if (sizes > 0).any() else 0.0
        if not np.isfinite(sizes[bad]) or (usual and sizes[bad] > _MOST_ABOVE_OTHERS * usual):
            raise AmcError(
                f"calibration sample {bad} of the input {tensor.name!r} holds values up to "
                f"{sizes[bad]:.3g}, where the samples' usual largest value is {usual:.3g}; least "
                "squares would follow it alone: leave it out, or scale it as the others"
            )


class Soundness:
    """Judges the weights of one refit after another, and says once which layers keep theirs."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def holds(self, layer: str, refitted: np.ndarray, dense: np.ndarray) -> bool:
        """Returns whether a refitted weight can be used.

        Args:
            layer: name of the layer, for the log.
            refitted: the refitted weight.
            dense: the dense one, in whatever shape.
        """
        largest = float(np.abs(dense).max(initial=0))
        found = float(np.abs(refitted).max(initial=0))
        if np.isfinite(found) and found <= _MOST_GROWTH * max(largest, 1.0):
            return True
        self.report(layer, f"weights up to {found:.3g}, where the dense ones reach {largest:.3g}")
        return False

    def report(self, layer: str, found: str) -> None:
        """Logs, once for each layer, that it keeps its weights."""
        if layer not in self._reported:
            self._reported.add(layer)
            _LOG.warning(
                "the refit of layer %r gave %s: it keeps its old weights; look for values in the "
                "calibration data that are far too large",
                layer,
                found,
            )
