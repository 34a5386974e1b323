"""The layers of a folded block, with the weights that carry its input and add it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from amc_tf.graph.layer_kinds import UNBOUNDED
from amc_tf.pruning.residuals.linear import is_norm, mixes, scale_and_offset, value_of
from amc_tf.pruning.residuals.moments import Moments
from amc_tf.pruning.residuals.plan import Fold
from amc_tf.pruning.residuals.ranges import held
from amc_tf.pruning.weights import numpy_of


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer to be made in the place of another.

    Attributes:
        layer: the other.
        settings: what is not as in its configuration.
        weights: all weights, by name.
    """

    layer: Any
    settings: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]

    def made(self) -> Any:
        """Makes it, without weights."""
        return type(self.layer).from_config({**self.layer.get_config(), **self.settings})


def widened(fold: Fold, of: Moments) -> Iterator[Layer]:
    """Yields the layers of a folded block that take the place of others.

    Args:
        fold: how it is folded.
        of: mean and variance of its input and its sum.
    """
    branch = fold.block.branch
    inputs = fold.shortcut.matrix.shape[0]
    carry = np.tile(np.eye(inputs), max(fold.copies, 1))
    if fold.copies == 2:
        carry[:, inputs:] *= -1
    rectified = False
    for i, call in enumerate(branch):
        layer = call.operation
        if i in fold.places and i < fold.last:
            yield _carrying(layer, fold.places[i], carry if i == fold.first else None, fold.carried)
        elif i == fold.last:
            yield _adding(fold, carry)
        elif is_norm(layer):
            sums = i > fold.last
            mean, variance = of.sum if sums else of.carried(fold.copies, rectified)
            yield _norm(layer, mean, variance, of.sum[0].size if sums else 0)
        activation = getattr(layer, "activation", None) if i in fold.places else layer
        rectified |= held(activation) not in (None, UNBOUNDED)


def _at(place: tuple[int, ...], kernel: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Returns a kernel of zeros but for a block at one place."""
    found = np.zeros((*kernel.shape[: len(place)], *block.shape))
    found[place] = block
    return found


def _carrying(layer: Any, place: tuple[int, ...], carry: np.ndarray | None, carried: int) -> Layer:
    """Returns a layer within the branch that passes channels on beside its own."""
    kernel = numpy_of(layer.kernel)
    own, made = kernel.shape[-2:]
    if not mixes(layer):  # depthwise
        kernel = np.concatenate([kernel, _at(place, kernel, np.ones((carried, 1)))], axis=-2)
        made = own
        settings = {}
    elif carry is not None:
        kernel = np.concatenate([kernel, _at(place, kernel, carry)], axis=-1)
        settings = _width(layer, made + carried)
    else:
        kernel = np.concatenate([kernel, np.zeros((*kernel.shape[:-1], carried))], axis=-1)
        passed = np.eye(carried, made + carried, made)
        kernel = np.concatenate([kernel, _at(place, kernel, passed)], axis=-2)
        settings = _width(layer, made + carried)
    weights = {"kernel": kernel}
    if layer.use_bias:
        weights["bias"] = np.append(numpy_of(layer.bias), np.zeros(carried))
    return Layer(layer, settings, weights)


def _adding(fold: Fold, carry: np.ndarray) -> Layer:
    """Returns the branch's last layer with a kernel, which adds what its shortcut added."""
    layer, place = fold.block.branch[fold.last].operation, fold.places[fold.last]
    kernel = numpy_of(layer.kernel).astype(np.float64)
    made = kernel.shape[-1]
    bias = value_of(layer, "bias", 0.0, made)
    for call in fold.block.branch[fold.last + 1 :]:
        if is_norm(call.operation):
            scale, offset = scale_and_offset(call.operation, made)
            kernel, bias = kernel * scale, bias * scale + offset
    added = _at(place, kernel, carry.T @ fold.shortcut.matrix)
    kernel = np.concatenate([kernel, added], axis=-2) if fold.copies else kernel + added
    weights = {"kernel": kernel, "bias": bias + fold.shortcut.offset}
    return Layer(layer, {"use_bias": True}, weights)


def _norm(norm: Any, mean: np.ndarray, variance: np.ndarray, replaced: int) -> Layer:
    """Returns a batch norm that leaves channels as they are, at inference and nearly in training.

    Args:
        norm: the batch norm in whose place it stands.
        mean: of those channels.
        variance: likewise.
        replaced: how many of the norm's own channels are among them.
    """
    own = norm.moving_mean.shape[0] - replaced
    values = {
        "gamma": (value_of(norm, "gamma", 1.0, own), np.sqrt(variance + norm.epsilon)),
        "beta": (value_of(norm, "beta", 0.0, own), mean),
        "moving_mean": (value_of(norm, "moving_mean", 0.0, own), mean),
        "moving_variance": (value_of(norm, "moving_variance", 1.0, own), variance),
    }
    weights = {name: np.append(old[:own], new) for name, (old, new) in values.items()}
    return Layer(norm, {"center": True, "scale": True}, weights)


def _width(layer: Any, channels: int) -> dict[str, int]:
    return {"filters" if "filters" in layer.get_config() else "units": channels}
