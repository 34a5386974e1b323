"""Which channels of a model must be kept or dropped together.

Every value of the flat network carries one integer id for each position of
its channel axis. One pass in topological order applies the rules of the layer
table. Ids that must be kept or dropped together are united into a class.
Classes that no layer can tell apart form a *group*, the unit of pruning.
Channels of calls that the table does not understand are frozen, and the reason
is recorded.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import keras
import numpy as np

from amc_tf.errors import AmcError
from amc_tf.graph import network as network_lib
from amc_tf.graph.channel_classes import Classes, Joint, classes_of
from amc_tf.graph.channel_graph import ChannelGraph, Refused, Site
from amc_tf.graph.constants import holds_arrays
from amc_tf.graph.flattening import flatten
from amc_tf.graph.grouping import groups_of
from amc_tf.graph.input_shapes import InputShape, Shape, counted_shapes
from amc_tf.graph.layer_rule import (
    Ids,
    LayerRule,
    Refusal,
    Roles,
    Signal,
    Unfit,
    output_role,
    roles_of_axes,
)
from amc_tf.graph.layer_table import is_registered, rule_of
from amc_tf.graph.operands import obstacle
from amc_tf.graph.probing import PROBED
from amc_tf.graph.reshaping import alike
from amc_tf.graph.vanishing import Followed, is_product, vanishes


def analyze(
    model: keras.Model,
    freeze: Sequence[str] = (),
    input_shape: InputShape = (),
    allow_approximate: bool = False,
) -> ChannelGraph:
    """Finds the groups of channels of a model that can be pruned.

    Args:
        model: a Functional or Sequential Keras 3 model, channels last; nested
            models are inlined.
        freeze: patterns (`fnmatch`) for the names of layers that keep all their
            output channels.
        input_shape: shape for which work is counted, without the batch axis, for a model
            whose input has open sizes: (224, 224, 3). For several inputs it is a list of
            shapes in their order, or a mapping from their names. The model's inputs stay
            open. Empty for the model's own sizes.
        allow_approximate: whether channels that a layer or RMS normalisation takes statistics
            over may be dropped. The statistics are then those of the channels that are kept, so
            that what is left computes something else than before; without this, such channels
            are frozen, and dropping others changes nothing but what they gave.

    Returns:
        The `ChannelGraph`.

    Raises:
        AmcError: the model is subclassed, not built, or built for
            channels_first; or `input_shape` does not fit its inputs.
    """
    network = flatten(model)
    shapes = counted_shapes(model, input_shape)
    return _Analysis(network, freeze, shapes, allow_approximate).graph()


class _Analysis:
    """The state of one pass (`amc_tf.graph.layer_rule.Connector`)."""

    def __init__(
        self,
        network: network_lib.Network,
        freeze: Sequence[str],
        input_shapes: tuple[Shape, ...],
        allow_approximate: bool,
    ):
        self.network = network
        self._input_shapes = input_shapes
        self._patterns = freeze
        self._allow_approximate = allow_approximate
        self._normalised: list[Ids] = []
        self._count = 0
        self._united: list[tuple[Ids, Ids]] = []
        self._frozen: list[tuple[Ids, str]] = []
        self._refused: list[Refused] = []
        self._probed: list[tuple[str, str]] = []
        self._sites: list[tuple[network_lib.Call, LayerRule, Roles]] = []
        self._joint: list[Joint] = []
        self._summed: list[tuple[str, Sequence[tuple[Ids, int]]]] = []
        self._of_value: dict[int, Ids] = {}
        self._axes: dict[int, dict[int, Ids]] = {}  # ids of axes before the last, by value
        self._followed: dict[int, Followed] = {}  # by output
        self._first_roles: dict[int, Roles] = {}
        self._made_by: list[str] = []  # for every id, the operation that made it

    # The methods of a `Connector`.
    def fresh(self, count: int) -> Ids:
        ids = np.arange(self._count, self._count + count)
        self._count += count
        self._made_by += [self._operation_name] * count
        return ids

    def unite(self, a: Ids, b: Ids) -> None:
        self._united.append((a, b))

    def freeze(self, ids: Ids, reason: str) -> None:
        if len(ids):
            self._frozen.append((ids, reason))

    def normalise(self, ids: Ids, reason: str) -> None:
        if self._allow_approximate:
            self._normalised.append(ids)
        else:
            self.freeze(ids, reason)

    def multiply(self, ids: Ids, parts: Sequence[Ids]) -> None:
        self._joint.append((ids, parts))

    def sum_over(self, operands: Sequence[tuple[Ids, int]]) -> None:
        self._summed.append((self._operation_name, operands))

    # The pass itself.
    def graph(self) -> ChannelGraph:
        self._operation_name = "input"
        for number in self.network.inputs:
            ids = self.fresh(self._width(number))
            self.freeze(ids, "model input")
            self._of_value[number] = ids
        for call in self.network.calls:
            self._operation_name = self.network.name(call.operation)
            self._visit(call)
        for number in self.network.outputs:
            self._freeze_value(number, "model output")
        return self._collect()

    def _freeze_value(self, number: int, reason: str) -> None:
        for ids in (self._of_value[number], *self._axes.get(number, {}).values()):
            self.freeze(ids, reason)

    def _shape(self, number: int) -> tuple[int | None, ...]:
        return tuple(self.network.tensors[number].shape)

    def _width(self, number: int) -> int:
        """Returns the channels of a value; 0 if it has no channel axis of known size."""
        shape = self._shape(number)
        return 0 if len(shape) < 2 or shape[-1] is None else shape[-1]

    def _visit(self, call: network_lib.Call) -> None:
        rule = rule_of(call.operation)
        try:
            if rule is None:
                roles = self._unknown(call)
            else:
                roles = self._connect(call, rule)
        except Refusal as refusal:
            if isinstance(refusal, Unfit) or (rule is not None and not _fits(rule, call)):
                rule = None
            # Of attention, what kept it from being looked into says more than its row.
            closed = None if rule is None else self.network.closed.get(id(call.operation))
            roles = self._refuse(call, rule, closed or str(refusal))
        for pattern in self._patterns:
            if fnmatch.fnmatchcase(self._operation_name, pattern):
                for number in call.outputs:
                    self._freeze_value(number, f"frozen by the pattern {pattern!r}")
        indexed = is_product(roles) or holds_arrays(roles)
        if rule is not None and (rule.weights or rule.rewrite or indexed):
            self._sites.append((call, rule, roles))
        if rule is not None and rule.weights:
            # A shared layer has one set of weights, so its calls keep the same channels. A
            # refused call has only the roles that its weights name.
            first = self._first_roles.setdefault(id(call.operation), roles)
            shared = first.keys() & roles.keys() & rule.indexed()
            for role in shared if first is not roles else ():
                self.unite(first[role], roles[role])

    def _unknown(self, call: network_lib.Call) -> Roles:
        """Follows a call whose class has no row, if a run of it shows what it does."""
        operation = call.operation
        if getattr(operation, "weights", ()):
            closed = self.network.closed.get(id(operation))
            inside = f" and {closed}" if closed else ""
            raise Refusal(
                f"its class is not in the layer table{inside}; amc_tf.register_layer can add it"
            )
        roles = self._connect(call, PROBED)
        self._probed.append((self._operation_name, type(operation).__name__))
        self._sites.append((call, PROBED, roles))  # its work is that of its channels
        return roles

    def _connect(self, call: network_lib.Call, rule: LayerRule) -> Roles:
        # In Flatten this setting only gives the order in which it reads.
        if type(call.operation) is not keras.layers.Flatten and (
            getattr(call.operation, "data_format", None) == "channels_first"
        ):
            raise AmcError(
                f"layer {self._operation_name!r} has data_format='channels_first', which TFLite "
                "does not run; build the model with channels_last"
            )
        inputs = [
            Signal(
                self._of_value[n],
                self._shape(n),
                self.network.tensors[n].dtype,
                self._axes.get(n, {}),
                n,
            )
            for n in call.inputs
        ]
        reason = obstacle(call, rule, {n: self._shape(n) for n in (*call.inputs, *call.outputs)})
        if reason:
            raise Refusal(reason)
        roles = self._roles(call, rule, inputs)
        if rule.axes == "alike":
            roles = {**roles, **alike(self, inputs, self._shape(call.outputs[0]))}
        elif rule.axes == "frozen":
            for number in call.inputs:
                for ids in self._axes.get(number, {}).values():
                    self.freeze(ids, f"{self._operation_name} does not treat their axis alone")
        for i, number in enumerate(call.outputs):
            role = output_role(i)
            self._of_value[number] = roles[role]
            axes = roles_of_axes(roles, role)
            if axes:
                self._axes[number] = {axis: roles[name] for axis, name in axes.items()}
            self._followed[number] = Followed(call, rule, roles)
        return roles

    def _roles(self, call: network_lib.Call, rule: LayerRule, inputs: Sequence[Signal]) -> Roles:
        """Returns the ids of each role, checked against the call and its weights."""
        try:
            roles = rule.connect(self, call, inputs, self._shape(call.outputs[0]))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if not is_registered(call.operation):
                raise
            raise Unfit(f"its row does not fit it ({type(error).__name__}: {error})") from error
        for i, number in enumerate(call.outputs):
            if len(roles.get(output_role(i), ())) != self._width(number):
                raise Unfit(f"its row does not give the channels of its output {i}")
        for weight, axes in rule.weight_axes(call.operation):
            widths = [None if role is None else len(roles.get(role, ())) for role in axes]
            if len(widths) != len(weight.shape) or any(
                width not in (None, size) for width, size in zip(widths, weight.shape, strict=True)
            ):
                raise Unfit(f"its row does not fit its weight {weight.name!r} of {weight.shape}")
        return roles

    def _refuse(self, call: network_lib.Call, rule: LayerRule | None, reason: str) -> Roles:
        """Freezes all channels that a call reads or makes; its weights keep their full size."""
        name, operation = self._operation_name, call.operation
        self._refused.append(Refused(name, type(operation).__name__, reason))
        reason = f"{name} ({type(operation).__name__}): {reason}"
        for number in call.inputs:
            self._freeze_value(number, reason)
        for number in call.outputs:
            ids = self.fresh(self._width(number))
            self.freeze(ids, reason)
            self._of_value[number] = ids
        roles: Roles = {}
        if rule is not None:
            for weight, axes in rule.weight_axes(operation):
                for role, size in zip(axes, weight.shape, strict=True):
                    if role is not None and role not in roles:
                        roles[role] = self.fresh(size)
                        self.freeze(roles[role], reason)
        return roles

    def _collect(self) -> ChannelGraph:
        found = classes_of(self._count, self._united, self._joint)
        for name, operands in self._summed:
            if not any(vanishes(n, ids, self._followed, found) for ids, n in operands):
                for ids, _ in operands:
                    self.freeze(ids, f"{name!r} sums over them, and no weights can make them zero")
        makers = self._makers(found)
        frozen = self._frozen_classes(found)
        sites = tuple(
            Site(
                name=self.network.name(call.operation),
                call=call,
                rule=rule,
                roles={role: found.of_id[ids] for role, ids in roles.items()},
            )
            for call, rule, roles in self._sites
            if not (rule.rewrite and not roles)
        )
        return ChannelGraph(
            network=self.network,
            sites=sites,
            groups=groups_of(sites, found, frozen, makers, self._normalised),
            refused=self._refused,
            probed=tuple(self._probed),
            frozen=self._frozen_listing(found.of_id, makers),
            classes=found.count,
            input_shapes=self._input_shapes,
            allow_approximate=self._allow_approximate,
            parts={
                whole: free
                for whole, parts in found.parts.items()
                if (free := tuple(part for part in parts if not frozen[part]))
            },
            values={number: found.of_id[ids] for number, ids in self._of_value.items()},
        )

    def _frozen_classes(self, found: Classes) -> np.ndarray:
        """Returns which classes must stay; a joint class that must takes its parts along."""
        frozen = np.zeros(found.count, bool)
        frozen[list(found.stuck)] = True
        for ids, _ in self._frozen:
            frozen[found.of_id[ids]] = True
        for whole, parts in found.parts.items():
            if frozen[whole]:
                frozen[list(parts)] = True
        return frozen

    def _makers(self, found: Classes) -> list[str]:
        makers = [""] * found.count
        for class_number, name in zip(found.of_id[::-1], self._made_by[::-1], strict=True):
            makers[class_number] = name
        return makers

    def _frozen_listing(self, classes_of_id: np.ndarray, makers: Sequence[str]):
        """Returns (layers that made the channels, number of channels, first reason), in order."""
        seen: set[int] = set()
        by_reason: dict[str, list[int]] = {}
        for ids, reason in self._frozen:
            new = [i for i in dict.fromkeys(classes_of_id[ids].tolist()) if i not in seen]
            seen.update(new)
            if new and reason:
                by_reason.setdefault(reason, []).extend(new)
        return tuple(
            (tuple(dict.fromkeys(makers[i] for i in found)), len(found), reason)
            for reason, found in by_reason.items()
        )


def _fits(rule: LayerRule, call: network_lib.Call) -> bool:
    """Returns whether a row names no more axes of a weight than it has (packed ones have fewer)."""
    return all(len(axes) == len(w.shape) for w, axes in rule.weight_axes(call.operation))
