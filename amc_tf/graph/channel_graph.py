"""The channel graph, which is the result of the analysis of a model."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amc_tf.errors import AmcError, printable
from amc_tf.graph import network as network_lib
from amc_tf.graph.layer_rule import LayerRule
from amc_tf.graph.plan import PruningPlan
from amc_tf.graph.trace import Trace, trace


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """A call whose weights or arguments are indexed by channels.

    Attributes:
        name: the operation's unique name in the network.
        call: the call.
        rule: the operation's row of the layer table.
        roles: mapping from a role to the channel class of each of its positions.
    """

    name: str
    call: network_lib.Call
    rule: LayerRule
    roles: Mapping[str, np.ndarray]

    def summed(self) -> set[str]:
        """Returns the roles over whose channels the call sums, with a kernel or without."""
        kernels = {role for name in self.rule.mixes for role in self.rule.mixed(name)}
        return kernels | set(self.summed_alone())

    def summed_alone(self) -> list[str]:
        """Returns the roles over whose channels the call sums without a kernel."""
        return [role for role in self.roles if role.startswith("sum:")]


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Channels that every layer treats in the same way; one decision of the agent.

    Attributes:
        name: name of the first layer that computes the channels (with `:2`, ... if that layer
            has several groups).
        channels: number of channels, each of which may cover several positions.
        producers: names of the layers that compute the channels.
        consumers: names of the layers whose kernels read the channels.
        classes: channel class of each channel, ascending.
        approximate: whether a normalisation takes statistics over the channels, so that the rest
            computes something else once some are dropped.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    classes: np.ndarray
    approximate: bool = False


class Refused(NamedTuple):
    """An operation that cannot be pruned through: its name, its class and the reason."""

    operation: str
    class_name: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ChannelGraph:
    """The result of `analyze`.

    Attributes:
        network: the model as a flat list of calls.
        sites: every call known to the layer table that has weights or whose arguments name
            positions, and every call that a run showed to treat each channel alone.
        groups: groups by name, in the order in which their channels are first read.
        refused: operations that could not be pruned through, with reasons.
        frozen: (layers, number of channels, reason) of every set of channels that must stay.
        classes: number of channel classes, including frozen ones.
        input_shapes: shape of each of the model's inputs for which work is counted, without
            the batch axis; None for a size that is open.
        probed: (operation, class) of what the layer table does not know, and a run showed to
            treat each channel alone.
        allow_approximate: whether groups may be approximate.
        parts: for each joint class (of a channel that is kept where its head and its width are),
            the classes of groups on which it depends.
        values: channel class of each position of the last axis of each value, by its number.
    """

    network: network_lib.Network
    sites: tuple[Site, ...]
    groups: Mapping[str, Group]
    refused: list[Refused]
    frozen: tuple[tuple[tuple[str, ...], int, str], ...]
    classes: int
    input_shapes: tuple[tuple[int | None, ...], ...]
    probed: tuple[tuple[str, str], ...] = ()
    allow_approximate: bool = False
    parts: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    values: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def trace(self) -> Trace:
        """The computation of one sample (or of the batch that the model's inputs fix)."""
        return trace(self.network, self.input_shapes)

    @property
    def is_open(self) -> bool:
        """Whether the size of an input is not known, so that its work cannot be counted."""
        return any(None in shape for shape in self.input_shapes)

    def keep_mask(self, plan: PruningPlan | None) -> np.ndarray:
        """Returns whether a plan keeps each channel class (None: all are kept).

        Returns:
            Booleans (classes,), to be indexed with a site's roles.

        Raises:
            AmcError: the plan names an unknown group or a channel that does not exist.
        """
        keep = np.ones(self.classes, bool)
        for name, kept in ({} if plan is None else plan.keep).items():
            group = self.group(name)
            if kept[-1] >= group.channels:
                raise AmcError(
                    f"the plan keeps channel {kept[-1]} of group {name!r}, which has only "
                    f"{group.channels} channels; was it made for another model?"
                )
            keep[group.classes] = False
            keep[group.classes[list(kept)]] = True
        return self.joined(keep)

    @functools.cached_property
    def _joint(self) -> np.ndarray:
        """Each joint class with each of its parts, int (pairs, 2)."""
        pairs = [(whole, part) for whole, parts in self.parts.items() for part in parts]
        return np.array(pairs, int).reshape(-1, 2)

    def joined(self, keep: np.ndarray) -> np.ndarray:
        """Returns which classes are kept, given which classes of groups are (changes `keep`)."""
        whole, part = self._joint.T
        keep[whole[~keep[part]]] = False
        return keep

    def gathered(self, score: np.ndarray) -> np.ndarray:
        """Returns the score of each class with those of the joint classes it is part of.

        Args:
            score: score of each class, float (classes,).
        """
        whole, part = self._joint.T
        total = score.copy()
        np.add.at(total, part, score[whole])
        return total

    @functools.cached_property
    def approximate(self) -> np.ndarray:
        """Whether each class is one of an approximate group, or joint with one, boolean."""
        found = np.zeros(self.classes, bool)
        for group in self.groups.values():
            found[group.classes] = group.approximate
        whole, part = self._joint.T
        found[whole[found[part]]] = True
        return found

    @functools.cached_property
    def summed(self) -> np.ndarray:
        """Whether an operation without weights sums over each class, boolean (classes,)."""
        found = np.zeros(self.classes, bool)
        for site in self.sites:
            for role in site.summed_alone():
                found[site.roles[role]] = True
        return found

    def kept_at(self, call: network_lib.Call, keep: np.ndarray) -> dict[str, np.ndarray]:
        """Returns which positions of each role of a call are kept, as boolean vectors.

        Args:
            call: a call of the network; one that is no site has no roles.
            keep: kept classes, boolean (classes,).
        """
        site = self.site_at(call)
        return {} if site is None else {r: keep[classes] for r, classes in site.roles.items()}

    def dropped_with(self, classes: np.ndarray, channel: int) -> np.ndarray:
        """Returns which positions go when a channel goes, boolean, in the shape of `classes`."""
        whole, part = self._joint.T
        return (classes == channel) | np.isin(classes, whole[part == channel])

    def site(self, name: str) -> Site:
        """Returns the site of the first call of the layer with that name."""
        return self._by_name[name]

    def site_at(self, call: network_lib.Call) -> Site | None:
        """Returns the site of a call; None if it has none."""
        return self._by_call.get(id(call))

    def sites_of(self, operation: Any) -> Sequence[Site]:
        """Returns the sites of all calls of an operation, in order."""
        return self._by_operation.get(id(operation), ())

    def first_sites(self) -> Sequence[Site]:
        """Returns the site of each layer's first call, so that shared weights appear once."""
        return tuple(self._by_name.values())

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Site]:
        first = {site.name: site for site in reversed(self.sites)}
        return {site.name: first[site.name] for site in self.sites}

    @functools.cached_property
    def _by_call(self) -> Mapping[int, Site]:
        return {id(site.call): site for site in self.sites}

    @functools.cached_property
    def _by_operation(self) -> Mapping[int, Sequence[Site]]:
        found: dict[int, list[Site]] = {}
        for site in self.sites:
            found.setdefault(id(site.call.operation), []).append(site)
        return found

    def group(self, name: str) -> Group:
        """Returns the group with that name.

        Raises:
            AmcError: there is none; the message suggests the most similar name.
        """
        if name in self.groups:
            return self.groups[name]
        near = difflib.get_close_matches(name, self.groups, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AmcError(f"the model has no prunable group {name!r}{hint}")

    def __str__(self) -> str:
        channels = sum(group.channels for group in self.groups.values())
        name = self.network.model.name
        return f"{printable(name)}: {len(self.groups)} groups, {channels} prunable channels"
