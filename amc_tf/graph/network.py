"""A Keras model as a flat list of calls, nested models inlined.

Keras keeps a functional graph as nodes attached to tensors and hides nested
models behind one opaque layer; `model.layers` leaves out `x + y`, slices and
every other `keras.ops` call. Everything in this package works instead on the
flat list that is made here. Each call in it has its operation and the numbers
of the values that it reads and writes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.composites import is_composite, look_into
from amc_tf.graph.inside import Closed, given, is_symbol
from amc_tf.graph.keras_structure import is_functional, nodes_in_order
from amc_tf.graph.output_specs import is_misspecified, output_spec
from amc_tf.graph.parameter import Parameter

Arguments = tuple[tuple, dict[str, Any]]  # positional and keyword


@dataclasses.dataclass(frozen=True)
class Value:
    """A reference to the `number`-th value of a network, inside a call's arguments."""

    number: int


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of one operation.

    Attributes:
        operation: the `keras.Operation` (most often a layer).
        args: positional arguments, each tensor replaced by its `Value`.
        kwargs: keyword arguments, each tensor replaced by its `Value`.
        inputs: numbers of the values that the call reads, in the order of the arguments.
        outputs: numbers of the values that the call writes.
    """

    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A model's calls in topological order.

    Calls that reach no output of the model are left out: a nested model may return values that
    nobody reads.

    Attributes:
        model: the model that was flattened.
        calls: the calls, each after those whose outputs it reads.
        tensors: the symbolic `KerasTensor` of every value (shape and dtype), with the sizes
            that it has in this model.
        inputs: value numbers of `model.inputs`.
        outputs: value numbers of `model.outputs`.
        names: the unique name of every operation, by the operation's `id`. It is the
            operation's own name unless two nested models use the same name.
        unread: operations whose calls were left out.
        opened: name and class of each layer that was looked into (`amc_tf.graph.composites`).
        closed: why a layer of the user's class was not looked into, by the layer's `id`.
    """

    model: keras.Model
    calls: tuple[Call, ...]
    tensors: tuple[Any, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: dict[int, str]
    unread: tuple[Any, ...]
    opened: tuple[tuple[str, str], ...] = ()
    closed: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def name(self, operation: Any) -> str:
        """Returns the unique name of one of the network's operations."""
        return self.names[id(operation)]

    def told(self, operation: Any) -> str:
        """Returns an operation's name and class, for messages."""
        return f"layer {self.name(operation)!r} ({type(operation).__name__})"

    def operations(self) -> list[Any]:
        """Returns every operation once, in the order of the first calls."""
        return list({id(call.operation): call.operation for call in self.calls}.values())

    def shares_weights(self) -> bool:
        """Returns whether two operations hold the same weight."""
        held = [id(w) for x in self.operations() for w in getattr(x, "weights", ())]
        return len(set(held)) < len(held)

    def readers(self, number: int) -> Sequence[Call]:
        """Returns the calls that read a value; a call that reads it twice is there twice."""
        return self._readers.get(number, ())

    @functools.cached_property
    def _readers(self) -> Mapping[int, Sequence[Call]]:
        readers: dict[int, list[Call]] = {}
        for call in self.calls:
            for number in call.inputs:
                readers.setdefault(number, []).append(call)
        return readers

    def run(
        self,
        inputs: Sequence[Any],
        invoke: Callable[[Call, tuple, dict], Any] | None = None,
    ) -> list[Any]:
        """Runs the calls on symbolic or real tensors.

        Args:
            inputs: one tensor for each of `self.inputs`.
            invoke: function that is called as `invoke(call, args, kwargs)` instead of
                the call's operation, with tensors in the place of each `Value`.

        Returns:
            One tensor for each of `self.outputs`.
        """
        if len(inputs) != len(self.inputs):
            raise ValueError(f"expected {len(self.inputs)} inputs, received {len(inputs)}")
        last_use = {n: i for i, call in enumerate(self.calls) for n in call.inputs}
        kept = set(self.outputs)
        values = dict(zip(self.inputs, inputs, strict=True))
        for i, call in enumerate(self.calls):
            args, kwargs = keras.tree.map_structure(
                lambda x: values[x.number] if isinstance(x, Value) else x,
                (call.args, call.kwargs),
            )
            out = call.operation(*args, **kwargs) if invoke is None else invoke(call, args, kwargs)
            values.update(zip(call.outputs, keras.tree.flatten(out), strict=True))
            # Activations of a whole calibration set are large, so each is dropped after its
            # last reader.
            for n in (*call.inputs, *call.outputs):
                if n not in kept and last_use.get(n, -1) <= i:
                    values.pop(n, None)
        return [values[n] for n in self.outputs]


def flatten(model: keras.Model, look_inside: bool = True) -> Network:
    """Flattens a Functional or Sequential model, inlining nested models.

    Args:
        model: a built `keras.Model` made of calls on symbolic tensors.
        look_inside: whether layers of the user's classes are replaced by the calls that they
            are made of, where these can be seen (`amc_tf.graph.composites`).

    Returns:
        The `Network`.

    Raises:
        AmcError: `model` is subclassed or not built.
    """
    if not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        hint = (
            "; amc_tf.from_keras2(model) carries a Keras 2 model over"
            if any(c.__module__.startswith("tf_keras.") for c in type(model).__mro__)
            else ""
        )
        raise AmcError(f"expected a keras.Model (Keras 3), received {kind}{hint}")
    if not is_functional(model):
        raise AmcError(
            f"model {model.name!r} ({type(model).__name__}) is not a Functional or a built "
            "Sequential model, so its layers cannot be seen; make it functional by "
            "amc_tf.functional(model, keras.Input(shape)), express it as "
            "keras.Model(inputs, outputs), or build it with a known input shape"
        )
    network = Flattener(look_inside).network(model)
    # A weight that two operations hold must stay one; so the blocks that read it stay whole.
    if network.opened and network.shares_weights():
        return Flattener(look_inside=False).network(model)
    return network


class Flattener:
    """The state of one pass: the values and calls so far, and where each operation stands."""

    def __init__(self, look_inside: bool = True) -> None:
        self.tensors: list[Any] = []
        self.calls: list[Call] = []
        self._look_inside = look_inside
        self.paths: dict[int, str] = {}  # of each operation, the nested models that hold it
        self.opened: dict[int, tuple[str, str]] = {}
        self.closed: dict[int, str] = {}
        self._parameters: dict[tuple[int, bool], Parameter] = {}  # by the `id` of the weight

    def network(self, model: Any) -> Network:
        """Returns the flat list of the calls that the model's outputs depend on."""
        inputs = [self.new_value(tensor) for tensor in model.inputs]
        outputs = self.inline(model, inputs, path="")
        calls = _reaching(self.calls, outputs)
        names = _unique_names(calls, self.paths)
        unread = {id(c.operation): c.operation for c in self.calls if id(c.operation) not in names}
        return Network(
            model=model,
            calls=calls,
            tensors=tuple(self.tensors),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            names=names,
            unread=tuple(unread.values()),
            opened=tuple(self.opened.values()),
            closed=self.closed,
        )

    def new_value(self, tensor: Any) -> int:
        """Appends a value; returns its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def new_call(
        self, operation: Any, arguments: Arguments, read: list[int], made: list[int], path: str
    ) -> None:
        """Appends a call of an operation of the nested model at `path`."""
        self.paths.setdefault(id(operation), path)
        args, kwargs = arguments
        self.calls.append(Call(operation, args, kwargs, tuple(read), tuple(made)))

    def inline(self, model: Any, inputs: Sequence[int], path: str) -> list[int]:
        """Appends the calls of `model` applied to the values `inputs`; returns its outputs."""
        # A model made for open sizes may be nested in one of fixed sizes.
        resized = any(
            tuple(t.shape[1:]) != tuple(self.tensors[n].shape[1:])
            for t, n in zip(model.inputs, inputs, strict=True)
        )
        numbers = {id(t): n for t, n in zip(model.inputs, inputs, strict=True)}
        self._append(nodes_in_order(model), numbers, path, resized)
        return [numbers[id(t)] for t in model.outputs]

    def _append(self, nodes: Sequence[Any], numbers: dict[int, int], path: str, resized: bool):
        """Appends calls; `numbers` holds the value of each tensor by its `id`, and gains theirs."""
        for node in nodes:
            found: list[int] = []

            def refer(x, found=found):
                if not isinstance(x, keras.KerasTensor):
                    return x
                found.append(numbers[id(x)])
                return Value(numbers[id(x)])

            args, kwargs = keras.tree.map_structure(
                refer, (node.arguments.args, node.arguments.kwargs)
            )
            operation = node.operation
            outputs = None
            if is_functional(operation) and len(found) == len(operation.inputs):
                outputs = self.inline(operation, found, f"{path}{operation.name}_")
            elif self._look_inside and is_composite(operation):
                outputs = self._inside(operation, args, kwargs, path)
            if outputs is None:
                made = node.outputs
                if resized or is_misspecified(operation) or self._differ(node, found):
                    made = self._specified(operation, args, kwargs, node)
                outputs = [self.new_value(t) for t in made]
                self.new_call(operation, (args, kwargs), found, outputs, path)
            numbers.update(zip(map(id, node.outputs), outputs, strict=True))

    def _inside(self, layer: Any, args: Any, kwargs: Any, path: str) -> list[int] | None:
        """Appends the calls that a layer is made of; returns its outputs, or None."""
        if id(layer) in self.closed:
            return None
        try:
            inside = look_into(layer, *self._symbolic((args, kwargs)))
        except Closed as reason:
            self.closed[id(layer)] = str(reason)
            return None
        self.opened[id(layer)] = (layer.name, type(layer).__name__)
        path = f"{path}{layer.name}_"
        read = [x.number for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Value)]
        numbers = {id(t): n for t, n in zip(inside.inputs, read, strict=True)}
        for symbol, parameter in inside.parameters:
            # Of all calls that read the weight in one way, one parameter holds it.
            key = id(parameter.value), parameter.each_sample
            held: Any = self._parameters.setdefault(key, parameter)
            spec = held.compute_output_spec(self.tensors[read[0]])
            numbers[id(symbol)] = self.new_value(spec)
            arguments = ((Value(read[0]),), {})
            self.new_call(held, arguments, read[:1], [numbers[id(symbol)]], path)
        self._append(inside.steps, numbers, path, resized=inside.marked)
        return [numbers[id(t)] for t in inside.outputs]

    def _symbolic(self, arguments: Any) -> Any:
        return keras.tree.map_structure(
            lambda x: self.tensors[x.number] if isinstance(x, Value) else x, arguments
        )

    def _differ(self, node: Any, found: Sequence[int]) -> bool:
        """Returns whether a call reads sizes other than those it was recorded with."""
        pairs = zip(filter(is_symbol, given(node)), found, strict=True)
        return any(tuple(x.shape[1:]) != tuple(self.tensors[n].shape[1:]) for x, n in pairs)

    def _specified(self, operation: Any, args: Any, kwargs: Any, node: Any) -> Sequence[Any]:
        """Returns the tensors that a call returns for inputs of the sizes they have here."""
        args, kwargs = self._symbolic((args, kwargs))
        made = keras.tree.flatten(output_spec(operation, args, kwargs))
        return [
            keras.KerasTensor(tensor.shape, old.dtype, name=old.name)
            for tensor, old in zip(made, node.outputs, strict=True)
        ]


def _reaching(calls: Sequence[Call], outputs: Sequence[int]) -> tuple[Call, ...]:
    """Returns the calls that values depend on: a nested model may return what nobody reads."""
    needed = set(outputs)
    kept = []
    for call in reversed(calls):
        if needed.intersection(call.outputs):
            needed.update(call.inputs)
            kept.append(call)
    return tuple(reversed(kept))


def _unique_names(calls: Sequence[Call], paths: Mapping[int, str]) -> dict[int, str]:
    """Names every operation, by its `id`; a name that is taken gains that of its nested model."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for call in calls:
        operation = call.operation
        if id(operation) in names:
            continue
        name = operation.name
        if name in taken:
            name = paths[id(operation)] + name
        stem, copy = name, 1
        while name in taken:
            copy += 1
            name = f"{stem}_{copy}"
        names[id(operation)] = name
        taken.add(name)
    return names
