"""Making the flat list of calls of a Keras model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.composites import is_composite, look_into
from amc_tf.graph.inside import Closed, given, is_symbol
from amc_tf.graph.keras_structure import is_functional, nodes_in_order
from amc_tf.graph.network import Call, Network, Value
from amc_tf.graph.output_specs import is_misspecified, output_spec, tensors_of
from amc_tf.graph.parameter import Parameter

Arguments = tuple[tuple, dict[str, Any]]  # positional and keyword


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
    closed: dict[int, str] = {}
    while True:
        flattener = Flattener(look_inside, closed)
        network = flattener.network(model)
        # A weight that two operations hold must stay one; so the blocks that read it stay whole.
        if network.opened and network.shares_weights():
            return Flattener(look_inside=False).network(model)
        constant = flattener.constants_read(network)
        if not constant:
            return network
        closed |= dict.fromkeys(constant, "it returns something that no input has a part in")


class Flattener:
    """The state of one pass: the values and calls so far, and where each operation stands."""

    def __init__(self, look_inside: bool = True, closed: Mapping[int, str] | None = None) -> None:
        self.tensors: list[Any] = []
        self.calls: list[Call] = []
        self._look_inside = look_inside
        self.paths: dict[int, str] = {}  # of each operation, the nested models that hold it
        self.opened: dict[int, tuple[str, str]] = {}
        self.closed = dict(closed or {})
        self._unread: dict[str, None] = {}
        self._constants: dict[int, int] = {}  # value that no call makes: `id` of its layer
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
            unread_weights=tuple(self._unread),
            opened=tuple(self.opened.values()),
            closed=self.closed,
        )

    def constants_read(self, network: Network) -> set[int]:
        """Returns the `id` of the layers that were looked into, and return what no call makes."""
        read = {*network.outputs, *(number for call in network.calls for number in call.inputs)}
        return {layer for number, layer in self._constants.items() if number in read}

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
                outputs = self._inside(operation, args, kwargs, path, node.outputs)
            if outputs is None:
                made = node.outputs
                if resized or is_misspecified(operation) or self._differ(node, found):
                    made = self._specified(operation, args, kwargs, node)
                outputs = [self.new_value(t) for t in made]
                self.new_call(operation, (args, kwargs), found, outputs, path)
            numbers.update(zip(map(id, node.outputs), outputs, strict=True))

    def _inside(
        self, layer: Any, args: Any, kwargs: Any, path: str, returned: Sequence[Any]
    ) -> list[int] | None:
        """Appends the calls that a layer is made of; returns its outputs, or None."""
        if id(layer) in self.closed:
            return None
        try:
            inside = look_into(layer, *self._symbolic((args, kwargs)))
        except Closed as reason:
            self.closed[id(layer)] = str(reason)
            return None
        self.opened[id(layer)] = (layer.name, type(layer).__name__)
        self._unread.update(dict.fromkeys(inside.unread))
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
        made: list[int] = []
        for tensor, told in zip(inside.outputs, returned, strict=True):
            made.append(self.new_value(told) if tensor is None else numbers[id(tensor)])
            if tensor is None:
                self._constants[made[-1]] = id(layer)
        return made

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
        made = tensors_of(output_spec(operation, args, kwargs))
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
