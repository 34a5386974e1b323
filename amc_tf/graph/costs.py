"""Exact costs of a plan, as pure functions of how many channels each group keeps.

The size of a site's weight is a product of widths, and each width is a constant
plus a sum of whole numbers times the groups' channel counts. So a cost is a
small polynomial, which is evaluated without building a model. One
multiply-accumulate (MAC) is two floating-point operations; the FLOPs of the AMC
paper are MACs. Biases, batch norms, activations and pooling count as zero MACs,
as in published figures.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.layer_rule import positions
from amc_tf.graph.layer_table import rule_of
from amc_tf.graph.plan import PruningPlan


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
    """A cost as a function of the groups' channel counts.

    Attributes:
        name: `macs` or `params`.
        base: part of the cost that no group changes.
        scale: factor of each term, int64 (terms,).
        slopes: factors of the groups' channel counts in the widths of each term, int64
            (terms, 2, groups).
        offsets: constant parts of the widths, int64 (terms, 2).
        sites: name of the site of each term.
        dense: the groups' full channel counts, int64 (groups,).
    """

    name: str
    base: int
    scale: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray
    sites: tuple[str, ...]
    dense: np.ndarray

    def __call__(self, counts: np.ndarray) -> int:
        """Returns the cost when group i keeps `counts[i]` channels (in order of graph.groups)."""
        return self.base + int(self.terms(counts).sum())

    def terms(self, counts: np.ndarray) -> np.ndarray:
        """Returns the cost of each term, int64, in the order of `sites`."""
        widths = self.slopes @ np.asarray(counts, np.int64) + self.offsets
        return self.scale * widths.prod(axis=1)

    def touched(self) -> np.ndarray:
        """Returns which groups change which terms, as booleans (terms, groups)."""
        return (self.slopes != 0).any(axis=1)


def macs_cost(graph: ChannelGraph) -> Cost:
    """Returns the MACs of one forward pass of one sample, as a `Cost`.

    Raises:
        AmcError: the model's input size is not fixed.
    """
    return _cost(
        "macs",
        graph,
        graph.sites,
        _unpruned_macs(graph),
        lambda site, weight: multiplications(graph, site, weight),
    )


def multiplications(graph: ChannelGraph, site: Site, weight: Any) -> int:
    """Returns how often a call multiplies each element of a weight; 0 for a bias, say.

    Raises:
        AmcError: the model's input size is not fixed.
    """
    side = site.rule.macs.get(weight.name)
    if side is None:
        return 0
    number = (site.call.outputs if side == "out" else site.call.inputs)[0]
    count = positions(graph.network.tensors[number].shape)
    if count is None:
        raise _size_not_fixed(site.name)
    return count


def _unpruned_macs(graph: ChannelGraph) -> int:
    """Returns the MACs of layers that are known but never pruned, such as attention."""

    def shape(number: int) -> tuple[int | None, ...]:
        return tuple(graph.network.tensors[number].shape)

    total = 0
    for call in graph.network.calls:
        rule = rule_of(call.operation)
        if rule is None or rule.fixed_macs is None:
            continue
        count = rule.fixed_macs(call, [shape(n) for n in call.inputs], shape(call.outputs[0]))
        if count is None:
            raise _size_not_fixed(graph.network.name(call.operation))
        total += count
    return total


def _size_not_fixed(name: str) -> AmcError:
    return AmcError(
        f"the MACs of {name!r} are unknown, because its size is not fixed; give the model a "
        "fixed input size, e.g. keras.Input((224, 224, 3))"
    )


def params_cost(graph: ChannelGraph) -> Cost:
    """Returns the number of parameters, trainable or not, as a `Cost`.

    It agrees with `keras.Model.count_params`.
    """
    sites = graph.first_sites()
    known = {site.name for site in sites}
    base = sum(
        operation.count_params()
        for operation in graph.network.operations()
        if graph.network.name(operation) not in known and hasattr(operation, "count_params")
    )
    return _cost("params", graph, sites, base, lambda site, weight: 1)


COSTS: Mapping[str, Callable[[ChannelGraph], Cost]] = {"macs": macs_cost, "params": params_cost}


def _cost(name, graph, sites: Iterable[Site], base: int, uses) -> Cost:
    group_of_class = np.full(graph.classes, -1)
    for i, group in enumerate(graph.groups.values()):
        group_of_class[group.classes] = i
    dense = dense_counts(graph)

    def width(classes: np.ndarray) -> tuple[np.ndarray, int]:
        """Returns a role's width as (factor of each group's count, constant)."""
        found = group_of_class[classes]
        total = np.bincount(found[found >= 0], minlength=len(dense))
        return total // dense, int(np.count_nonzero(found < 0))

    names, scale, slopes, offsets = [], [], [], []
    for site in sites:
        for weight, axes in site.rule.weight_axes(site.call.operation):
            sizes = zip(weight.shape, axes, strict=True)
            fixed = [size for size, role in sizes if role is None]
            factor = uses(site, weight) * math.prod(fixed)
            if not factor:
                continue
            widths = [width(site.roles[role]) for role in axes if role is not None]
            widths += [(np.zeros_like(dense), 1)] * (2 - len(widths))
            names.append(site.name)
            scale.append(factor)
            slopes.append([slope for slope, _ in widths])
            offsets.append([offset for _, offset in widths])
    terms = len(names)
    return Cost(
        name=name,
        base=base,
        scale=np.array(scale, np.int64).reshape(terms),
        slopes=np.array(slopes, np.int64).reshape(terms, 2, len(dense)),
        offsets=np.array(offsets, np.int64).reshape(terms, 2),
        sites=tuple(names),
        dense=dense,
    )


def dense_counts(graph: ChannelGraph) -> np.ndarray:
    """Returns the groups' full channel counts, int64, in the order of `graph.groups`."""
    return np.array([group.channels for group in graph.groups.values()], np.int64)


def plan_counts(graph: ChannelGraph, plan: PruningPlan | None) -> np.ndarray:
    """Returns how many channels each group keeps under a plan (checked against the graph)."""
    keep = graph.keep_mask(plan)
    return np.array(
        [np.count_nonzero(keep[group.classes]) for group in graph.groups.values()], np.int64
    )


def macs(graph: ChannelGraph, plan: PruningPlan | None = None) -> int:
    """Returns the MACs of one sample's forward pass under a plan (None: dense)."""
    return macs_cost(graph)(plan_counts(graph, plan))


def params(graph: ChannelGraph, plan: PruningPlan | None = None) -> int:
    """Returns the number of parameters, trainable or not, under a plan (None: dense)."""
    return params_cost(graph)(plan_counts(graph, plan))
