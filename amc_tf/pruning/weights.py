"""Weights of layers by name, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from amc_tf.graph.channel_graph import ChannelGraph, Site

# "layer/weight" -> an array of the dense weight's shape that replaces it.
Weights = Mapping[str, np.ndarray]


def mixing_weights(graph: ChannelGraph):
    """Yields (site, weight, axis) for each axis over which a kernel sums, once for each layer."""
    for site in graph.first_sites():
        for weight, axes in site.rule.weight_axes(site.call.operation):
            for role in site.rule.mixed(weight.name):
                yield site, weight, axes.index(role)


def mixing_kernels(graph: ChannelGraph):
    """Yields (site, weight) for each kernel that sums over channels, once for each layer."""
    for site in graph.first_sites():
        for weight, _ in site.rule.weight_axes(site.call.operation):
            if site.rule.mixed(weight.name):
                yield site, weight


def classes_along(site: Site, weight: Any, axis: int) -> np.ndarray:
    """Returns the channel class of each position of an axis of a weight that channels index."""
    for own, axes in site.rule.weight_axes(site.call.operation):
        if own.name == weight.name and (role := axes[axis]) is not None:
            return site.roles[role]
    raise KeyError(weight.name)


def classes_read(site: Site, kernel: str) -> np.ndarray:
    """Returns the channel class of each channel, or of each feature, that a kernel reads."""
    if "features" in site.roles:
        return site.roles["features"]
    (role,) = site.rule.mixed(kernel)
    return site.roles[role]


def summed_classes(graph: ChannelGraph) -> np.ndarray:
    """Returns which channel classes operations without weights sum over, boolean (classes,)."""
    summed = np.zeros(graph.classes, bool)
    for site in graph.sites:
        for role in site.summed_alone():
            summed[site.roles[role]] = True
    return summed


def indexed_weights(graph: ChannelGraph):
    """Yields (site, weight, axis, classes) for each axis of a weight that channels index."""
    for site in graph.first_sites():
        for weight, axes in site.rule.weight_axes(site.call.operation):
            for axis, role in enumerate(axes):
                if role is not None:
                    yield site, weight, axis, site.roles[role]


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
