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
import inspect
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from amc_tf.errors import AmcError
from amc_tf.graph import network as network_lib
from amc_tf.graph.channel_graph import ChannelGraph, Group, Refused, Site
from amc_tf.graph.input_shapes import InputShape, Shape, counted_shapes
from amc_tf.graph.layer_rule import Ids, LayerRule, Refusal, Roles, Signal, Unfit, output_role
from amc_tf.graph.layer_table import is_registered, rule_of
from amc_tf.graph.probing import PROBED


def analyze(
    model: keras.Model, freeze: Sequence[str] = (), input_shape: InputShape = ()
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

    Returns:
        The `ChannelGraph`.

    Raises:
        AmcError: the model is subclassed, not built, or built for
            channels_first; or `input_shape` does not fit its inputs.
    """
    network = network_lib.flatten(model)
    return _Analysis(network, freeze, counted_shapes(model, input_shape)).graph()


class _Analysis:
    """The state of one pass (`amc_tf.graph.layer_rule.Connector`)."""

    def __init__(
        self,
        network: network_lib.Network,
        freeze: Sequence[str],
        input_shapes: tuple[Shape, ...],
    ):
        self.network = network
        self._input_shapes = input_shapes
        self._patterns = freeze
        self._count = 0
        self._united: list[tuple[Ids, Ids]] = []
        self._frozen: list[tuple[Ids, str]] = []
        self._refused: list[Refused] = []
        self._probed: list[tuple[str, str]] = []
        self._sites: list[tuple[network_lib.Call, LayerRule, Roles]] = []
        self._of_value: dict[int, Ids] = {}
        self._first_roles: dict[int, Roles] = {}
        self._made_by: list[str] = []  # for every id, the operation that made it

    # The methods of a `Connector`, which rules call.
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
            self.freeze(self._of_value[number], "model output")
        return self._collect()

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
            if isinstance(refusal, Unfit):
                rule = None
            roles = self._refuse(call, rule, str(refusal))
        for pattern in self._patterns:
            if fnmatch.fnmatchcase(self._operation_name, pattern):
                for number in call.outputs:
                    self.freeze(self._of_value[number], f"frozen by the pattern {pattern!r}")
        if rule is not None and (rule.weights or rule.rewrite):
            self._sites.append((call, rule, roles))
        if rule is not None and rule.weights:
            # A shared layer has one set of weights, so its calls keep the same channels. A
            # refused call has only the roles that its weights name.
            first = self._first_roles.setdefault(id(call.operation), roles)
            for role in first.keys() & roles.keys() if first is not roles else ():
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
            Signal(self._of_value[n], self._shape(n), self.network.tensors[n].dtype)
            for n in call.inputs
        ]
        if not inputs:
            raise Refusal("it has no inputs")
        if any(self._width(n) == 0 for n in (*call.inputs, *call.outputs)):
            raise Refusal("a tensor's channel axis has no known size")
        if any(n in self._inner_inputs(call) for n in call.inputs):
            raise Refusal("one of its options is a tensor")
        roles = self._roles(call, rule, inputs)
        for i, number in enumerate(call.outputs):
            self._of_value[number] = roles[output_role(i)]
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

    @staticmethod
    def _inner_inputs(call: network_lib.Call) -> set[int]:
        """Returns the values passed to a parameter that is not an operand's (a mask, say).

        Of a layer that the user registered, positional arguments are operands.
        """
        names = list(inspect.signature(type(call.operation).call).parameters)[1:]
        operands = {*names[:1], "inputs", "x", "x1", "x2", "xs", "key"}
        positional = () if is_registered(call.operation) else zip(names, call.args, strict=False)
        options = [
            value for name, value in (*positional, *call.kwargs.items()) if name not in operands
        ]
        return {x.number for x in keras.tree.flatten(options) if isinstance(x, network_lib.Value)}

    def _refuse(self, call: network_lib.Call, rule: LayerRule | None, reason: str) -> Roles:
        """Freezes all channels that a call reads or makes; its weights keep their full size."""
        name, operation = self._operation_name, call.operation
        self._refused.append(Refused(name, type(operation).__name__, reason))
        reason = f"{name} ({type(operation).__name__}): {reason}"
        for number in call.inputs:
            self.freeze(self._of_value[number], reason)
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
        classes_of_id = self._classes()
        count = int(classes_of_id.max(initial=-1)) + 1
        makers = self._makers(classes_of_id, count)
        frozen = np.zeros(count, bool)
        for ids, _ in self._frozen:
            frozen[classes_of_id[ids]] = True
        sites = tuple(
            Site(
                name=self.network.name(call.operation),
                call=call,
                rule=rule,
                roles={role: classes_of_id[ids] for role, ids in roles.items()},
            )
            for call, rule, roles in self._sites
            if not (rule.rewrite and not roles)
        )
        return ChannelGraph(
            network=self.network,
            sites=sites,
            groups=_groups(sites, frozen, makers),
            refused=self._refused,
            probed=tuple(self._probed),
            frozen=self._frozen_listing(classes_of_id, makers),
            classes=count,
            input_shapes=self._input_shapes,
        )

    def _classes(self) -> np.ndarray:
        """Returns the class of each id; classes are numbered in the order of their first ids."""
        pairs = [np.stack([a, b]) for a, b in self._united]
        a, b = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
        links = coo_array((np.ones(len(a), bool), (a, b)), shape=(self._count, self._count))
        labels = connected_components(links, directed=False)[1]
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]

    def _makers(self, classes_of_id: np.ndarray, count: int) -> list[str]:
        makers = [""] * count
        for class_number, name in zip(classes_of_id[::-1], self._made_by[::-1], strict=True):
            makers[class_number] = name
        return makers

    def _frozen_listing(self, classes_of_id: np.ndarray, makers: Sequence[str]):
        """Returns (layers that made the channels, number of channels, first reason), in order."""
        seen: set[int] = set()
        by_reason: dict[str, list[int]] = {}
        for ids, reason in self._frozen:
            new = [i for i in dict.fromkeys(classes_of_id[ids].tolist()) if i not in seen]
            seen.update(new)
            if new:
                by_reason.setdefault(reason, []).extend(new)
        return tuple(
            (tuple(dict.fromkeys(makers[i] for i in found)), len(found), reason)
            for reason, found in by_reason.items()
        )


def _groups(sites: Sequence[Site], frozen: np.ndarray, makers: Sequence[str]) -> dict[str, Group]:
    """Groups the classes that appear equally often in every role of every site.

    Frozen classes are left out.
    """
    signature: list[list[tuple[int, str, int]]] = [[] for _ in frozen]
    for i, site in enumerate(sites):
        for role, classes in site.roles.items():
            found, times = np.unique(classes, return_counts=True)
            for class_number, n in zip(found.tolist(), times.tolist(), strict=True):
                if not frozen[class_number]:
                    signature[class_number].append((i, role, n))
    alike: dict[tuple, list[int]] = {}
    for class_number, seen in enumerate(signature):
        if seen:
            alike.setdefault(tuple(seen), []).append(class_number)
    # Groups are ordered by the first layer that reads their channels, because the agent goes
    # along the network.
    first_read = {
        key: min((i for i, role, _ in key if role in _mixed_roles(sites[i])), default=len(sites))
        for key in alike
    }
    groups: dict[str, Group] = {}
    for key in sorted(alike, key=lambda k: (first_read[k], alike[k][0])):
        classes = np.array(alike[key])
        producers = _names(
            sites[i] for i, role, _ in key if role == "out" and _makes(sites[i].rule)
        )
        consumers = _names(sites[i] for i, role, _ in key if role in _mixed_roles(sites[i]))
        if not consumers:
            continue  # no kernel reads them: there is no weight to save or refit
        stem = name = (producers or (makers[classes[0]],))[0]
        copy = 1
        while name in groups:
            copy += 1
            name = f"{stem}:{copy}"
        groups[name] = Group(name, len(classes), producers, consumers, classes)
    return groups


def _names(sites: Iterable[Site]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(site.name for site in sites))


def _mixed_roles(site: Site) -> set[str]:
    return set(site.rule.mixes.values())


def _makes(rule: LayerRule) -> bool:
    """Returns whether a row computes new channels, rather than passing on those of its input."""
    return bool(rule.mixes)
