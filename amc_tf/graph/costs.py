"""Exact costs of a plan, as pure functions of how many channels each group keeps.

The size of a site's weight is a product of widths, and each width is a constant
plus a sum of whole numbers times the groups' channel counts. So a cost is a
small polynomial, which is evaluated without building a model. One
multiply-accumulate (MAC) is two floating-point operations; the FLOPs of the AMC
paper are MACs. Biases, batch norms, activations and pooling count as zero MACs,
as in published figures. Calls whose rows name no weights that are multiplied, or
that have no row, are counted from the traced computation (`amc_tf.graph.trace`).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph, Refused, Site
from amc_tf.graph.function_macs import Work
from amc_tf.graph.layer_rule import axis_role, roles_of_axes, volume
from amc_tf.graph.layer_table import is_registered, rule_of
from amc_tf.graph.network import Call
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.probing import PROBED
from amc_tf.graph.role_widths import Linear, RoleWidths


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
    """A cost as a function of the groups' channel counts.

    Attributes:
        name: `macs` or `params`.
        fixed: part of each layer that is counted, but that no group changes, by the layer's
            name.
        scale: factor of each term, int64 (terms,).
        slopes: factors of the groups' channel counts in the widths of each term, int64
            (terms, widths, groups).
        offsets: constant parts of the widths, int64 (terms, widths).
        sites: name of the site of each term.
        dense: the groups' full channel counts, int64 (groups,).
        uncounted: operations whose cost is not known, and what they do.
    """

    name: str
    fixed: Mapping[str, int]
    scale: np.ndarray
    slopes: np.ndarray
    offsets: np.ndarray
    sites: tuple[str, ...]
    dense: np.ndarray
    uncounted: tuple[Refused, ...] = ()

    def __call__(self, counts: np.ndarray) -> int:
        """Returns the cost when group i keeps `counts[i]` channels (in order of graph.groups)."""
        return sum(self.fixed.values()) + int(self.terms(counts).sum())

    def terms(self, counts: np.ndarray) -> np.ndarray:
        """Returns the cost of each term, int64, in the order of `sites`."""
        widths = self.slopes @ np.asarray(counts, np.int64) + self.offsets
        return self.scale * widths.prod(axis=1)

    def touched(self) -> np.ndarray:
        """Returns which groups change which terms, as booleans (terms, groups)."""
        return (self.slopes != 0).any(axis=1)

    def untouched(self) -> dict[str, int]:
        """Returns the cost of each layer that no group changes, as `by_layer`."""
        return self._summed(self.terms(self.dense) * ~self.touched().any(axis=1))

    def by_layer(self, counts: np.ndarray) -> dict[str, int]:
        """Returns the cost of each layer that has one, when group i keeps `counts[i]` channels."""
        return self._summed(self.terms(counts))

    def _summed(self, terms: np.ndarray) -> dict[str, int]:
        found = dict(self.fixed)
        for layer, value in zip(self.sites, terms.tolist(), strict=True):
            if value:
                found[layer] = found.get(layer, 0) + value
        return found


def macs_cost(graph: ChannelGraph) -> Cost:
    """Returns the MACs of one forward pass of one sample, as a `Cost`.

    Raises:
        AmcError: the model's input size is not fixed, and `analyze` was given none.
    """
    fixed: dict[str, int] = {}
    of_channels: list[tuple[Site, int]] = []
    uncounted: list[Refused] = []
    for call, traced in zip(graph.network.calls, graph.trace.work, strict=True):
        name = graph.network.name(call.operation)
        work = _beside_the_row(graph, call, traced)
        site = graph.site_at(call)
        if work.macs and site is not None and _work_roles(site):
            of_channels.append((site, work.macs))
        elif work.macs:
            fixed[name] = fixed.get(name, 0) + work.macs
        if work.uncounted:
            if graph.is_open:
                raise _size_not_known(graph, name)
            reason = ", ".join(work.uncounted)
            uncounted.append(Refused(name, type(call.operation).__name__, reason))

    def uses(site: Site, weight: Any) -> tuple[int, Sequence[str]]:
        if not graph.is_open and _multiplications(graph, site, weight) is None:
            kind = type(site.call.operation).__name__
            uncounted.append(Refused(site.name, kind, "its size depends on what it reads"))
            return 0, ()
        positions = _position_roles(site, weight)
        held = math.prod(len(site.roles[role]) for role in positions)
        return multiplications(graph, site, weight) // held, positions

    cost = _cost("macs", graph, graph.sites, fixed, uses, of_channels)
    return dataclasses.replace(cost, uncounted=tuple(dict.fromkeys(uncounted)))


def _beside_the_row(graph: ChannelGraph, call: Call, traced: Work) -> Work:
    """Returns the work of a call that its row does not hold.

    A row of the table is taken at its word. What a registered layer does beyond its row is
    counted at its full width.
    """
    rule = rule_of(call.operation)
    if rule is None or not rule.macs:
        return traced
    if not is_registered(call.operation):
        return Work()
    site = graph.site_at(call)
    if site is None:
        return traced
    told = (
        (_multiplications(graph, site, weight) or 0) * math.prod(weight.shape)
        for weight in call.operation.weights
    )
    return Work(max(0, traced.macs - sum(told)))


def multiplications(graph: ChannelGraph, site: Site, weight: Any) -> int:
    """Returns how often a call multiplies each element of a weight; 0 for a bias, say.

    Raises:
        AmcError: the size of what the call computes is not known.
    """
    count = _multiplications(graph, site, weight)
    if count is None:
        raise _size_not_known(graph, site.name)
    return count


def _multiplications(graph: ChannelGraph, site: Site, weight: Any) -> int | None:
    side = site.rule.macs.get(weight.name)
    if side is None:
        return 0
    number = (site.call.outputs if side == "out" else site.call.inputs)[0]
    shape = graph.trace.shapes[number]
    indexed = set(site.rule.weights.get(weight.name, ()))
    axes = range(-len(shape), -1)
    count = volume([shape[axis] for axis in axes if axis_role(side, axis) not in indexed])
    return None if count is None else count // graph.trace.batch


def _position_roles(site: Site, weight: Any) -> list[str]:
    """Returns the roles of axes along which a kernel is applied, and which hold channels."""
    side = site.rule.macs.get(weight.name, "")
    indexed = set(site.rule.weights.get(weight.name, ()))
    return [role for role in roles_of_axes(site.roles, side).values() if role not in indexed]


def _work_roles(site: Site) -> list[list[str]]:
    """Returns the roles over whose channels each product of a site without weights runs."""
    if site.rule is PROBED:
        return [["out"]]
    products: dict[str, list[str]] = {}
    for role in site.roles:
        if role.startswith("work"):
            products.setdefault(role.split(":")[0], []).append(role)
    return list(products.values())


def _size_not_known(graph: ChannelGraph, name: str) -> AmcError:
    if not graph.is_open:
        return AmcError(
            f"the MACs of {name!r} are unknown, because its size depends on the values it reads; "
            "give what it reads a fixed size, e.g. by padding"
        )
    return AmcError(
        f"the MACs of {name!r} are unknown, because its size is not fixed; say for which size to "
        "count, e.g. input_shape=(224, 224, 3) (in SearchSettings or amc_tf.analyze; on the "
        "command line --input_shape=224,224,3), or give the model a fixed input size, e.g. "
        "keras.Input((224, 224, 3))"
    )


def params_cost(graph: ChannelGraph) -> Cost:
    """Returns the number of parameters, trainable or not, as a `Cost`.

    It agrees with `keras.Model.count_params` of the rebuilt model, which has none of the layers
    that reach no output.
    """
    sites = graph.first_sites()
    known = {site.name for site in sites}
    fixed = {
        graph.network.name(operation): operation.count_params()
        for operation in graph.network.operations()
        if graph.network.name(operation) not in known and hasattr(operation, "count_params")
    }
    return _cost("params", graph, sites, fixed, lambda site, weight: (1, ()))


COSTS: Mapping[str, Callable[[ChannelGraph], Cost]] = {"macs": macs_cost, "params": params_cost}


def _cost(
    name: str,
    graph: ChannelGraph,
    sites: Iterable[Site],
    fixed: Mapping[str, int],
    uses: Callable[[Site, Any], tuple[int, Sequence[str]]],
    of_channels: Sequence[tuple[Site, int]] = (),
) -> Cost:
    """Makes a cost of what `uses` says of each weight.

    Args:
        name: see `Cost`.
        graph: the graph.
        sites: the sites whose weights count.
        fixed: see `Cost`.
        uses: how often a site's weight counts, and for each channel of which other roles.
        of_channels: sites without weights, and what each costs, the same for each channel.
    """
    dense = dense_counts(graph)
    widths = RoleWidths(graph, dense)
    names: list[str] = []
    scale: list[int] = []
    factors: list[list[Linear]] = []

    def add(site: Site, factor: int, roles: Iterable[str]) -> None:
        """Adds a factor times the widths of roles: a product of sums, as a sum of products."""
        for product in itertools.product(*(widths.of(site.roles[role]) for role in roles)):
            names.append(site.name)
            scale.append(factor)
            factors.append([linear for of_role in product for linear in of_role])

    for site in sites:
        for weight, axes in site.rule.weight_axes(site.call.operation):
            sizes = zip(weight.shape, axes, strict=True)
            constant = [size for size, role in sizes if role is None]
            times, positions = uses(site, weight)
            factor = times * math.prod(constant)
            if factor:
                add(site, factor, (*(role for role in axes if role is not None), *positions))
    for site, total in of_channels:
        products = _work_roles(site)
        elements = [math.prod(len(site.roles[role]) for role in roles) for roles in products]
        for roles in products:
            add(site, total // sum(elements), roles)
    terms, most = len(names), max(map(len, factors), default=0)
    slopes = np.zeros((terms, most, len(dense)), np.int64)
    offsets = np.ones((terms, most), np.int64)
    for term, of_term in enumerate(factors):
        for i, (slope, offset) in enumerate(of_term):
            slopes[term, i], offsets[term, i] = slope, offset
    return Cost(
        name=name,
        fixed=fixed,
        scale=np.array(scale, np.int64).reshape(terms),
        slopes=slopes,
        offsets=offsets,
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
