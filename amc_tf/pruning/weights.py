"""Weights of layers by name, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph, Site

# "layer/weight" -> an array of the dense weight's shape that replaces it.
Weights = Mapping[str, np.ndarray]


class Indexed(NamedTuple):
    """An axis of a weight that channels index.

    Attributes:
        site: the first call of the layer.
        weight: the weight.
        axis: number of the axis.
        classes: channel class of each position.
        mixed: whether the weight sums over these channels, and does not make them.
    """

    site: Site
    weight: Any
    axis: int
    classes: np.ndarray
    mixed: bool


def indexed_weights(graph: ChannelGraph) -> Iterator[Indexed]:
    """Yields each axis of a weight that channels index, once for each layer."""
    for site in graph.first_sites():
        for weight, axes in site.rule.weight_axes(site.call.operation):
            for axis, role in enumerate(axes):
                if role is not None:
                    mixed = role in site.rule.mixed(weight.name)
                    yield Indexed(site, weight, axis, site.roles[role], mixed)


def mixing_weights(graph: ChannelGraph) -> Iterator[Indexed]:
    """Yields each axis over which a kernel sums, once for each layer."""
    return (found for found in indexed_weights(graph) if found.mixed)


def making_weights(graph: ChannelGraph) -> Iterator[Indexed]:
    """Yields each axis of a weight whose channels it makes, scales or shifts."""
    return (found for found in indexed_weights(graph) if not found.mixed)


def mixing_kernels(graph: ChannelGraph) -> list[tuple[Site, Any]]:
    """Returns (site, weight) of each kernel that sums over channels, once for each layer."""
    kernels = {(x.site.name, x.weight.name): (x.site, x.weight) for x in mixing_weights(graph)}
    return list(kernels.values())


def classes_read(site: Site, kernel: str) -> np.ndarray:
    """Returns the channel class of each channel, or of each feature, that a kernel reads."""
    if "features" in site.roles:
        return site.roles["features"]
    (role,) = site.rule.mixed(kernel)
    return site.roles[role]


def numpy_of(weight: Any) -> np.ndarray:
    """Returns a variable's value."""
    return keras.ops.convert_to_numpy(weight)


def has_weight(layer: Any, name: str) -> bool:
    """Whether a layer has a variable of that name."""
    return any(w.name == name for w in layer.weights)


def named_weight(layer: Any, name: str) -> Any:
    """Returns a layer's variable of that name."""
    return next(w for w in layer.weights if w.name == name)


def cut(site: Site, name: str, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Returns a weight without the channels that a plan drops.

    Args:
        site: a call of the layer.
        name: name of the weight.
        value: its value in the dense shape.
        keep: whether each channel class is kept, boolean (classes,).
    """
    for axis, rows in enumerate(_kept(site, name, keep)):
        if rows is not None and not rows.all():
            value = np.compress(rows, value, axis)
    return value


def spread(site: Site, name: str, value: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Returns a pruned network's weight in the dense shape, zero at the channels dropped.

    Args:
        site: a call of the layer.
        name: name of the weight.
        value: its value in the pruned network, of any shape with as many elements.
        keep: whether each channel class is kept, boolean (classes,).
    """
    shape = named_weight(site.call.operation, name).shape
    kept = [
        np.arange(size) if rows is None else np.flatnonzero(rows)
        for size, rows in zip(shape, _kept(site, name, keep), strict=True)
    ]
    full = np.zeros(shape, value.dtype)
    full[np.ix_(*kept)] = value.reshape([len(rows) for rows in kept])
    return full


def _kept(site: Site, name: str, keep: np.ndarray) -> list[np.ndarray | None]:
    """Returns for each axis of a weight which positions are kept; None where nothing is cut."""
    for weight, axes in site.rule.weight_axes(site.call.operation):
        if weight.name == name:
            return [None if role is None else keep[site.roles[role]] for role in axes]
    return [None] * len(named_weight(site.call.operation, name).shape)
