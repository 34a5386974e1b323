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
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from amc_tf.errors import AmcError
from amc_tf.graph.keras_structure import is_functional, nodes_in_order


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

    Attributes:
        model: the model that was flattened.
        calls: the calls, each after those whose outputs it reads.
        tensors: the symbolic `KerasTensor` of every value (shape and dtype).
        inputs: value numbers of `model.inputs`.
        outputs: value numbers of `model.outputs`.
        names: the unique name of every operation, by the operation's `id`. It is the
            operation's own name unless two nested models use the same name.
    """

    model: keras.Model
    calls: tuple[Call, ...]
    tensors: tuple[Any, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    names: dict[int, str]

    def name(self, operation: Any) -> str:
        """Returns the unique name of one of the network's operations."""
        return self.names[id(operation)]

    def told(self, operation: Any) -> str:
        """Returns an operation's name and class, for messages."""
        return f"layer {self.name(operation)!r} ({type(operation).__name__})"

    def operations(self) -> list[Any]:
        """Returns every operation once, in the order of the first calls."""
        return list({id(call.operation): call.operation for call in self.calls}.values())

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


def flatten(model: keras.Model) -> Network:
    """Flattens a Functional or Sequential model, inlining nested models.

    Args:
        model: a built `keras.Model` made of calls on symbolic tensors.

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
            "Sequential model, so its layers cannot be seen; express it as "
            "keras.Model(inputs, outputs), or build it with a known input shape"
        )
    return Flattener().network(model)


def infer(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Calls an operation in inference mode.

    Layers that augment images run in training mode by default.
    """
    mode = {"training": False} if _can_train(type(operation)) else {}
    return operation(*args, **{**kwargs, **mode})


@functools.cache
def _can_train(kind: type) -> bool:
    return issubclass(kind, keras.Layer) and "training" in inspect.signature(kind.call).parameters


class Flattener:
    """The state of one pass: the values and calls so far, and the names in use."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.calls: list[Call] = []
        self.names: dict[int, str] = {}
        self._taken: set[str] = set()

    def network(self, model: Any) -> Network:
        """Returns the flat list of a model's calls."""
        inputs = [self.new_value(tensor) for tensor in model.inputs]
        outputs = self.inline(model, inputs, path="")
        return Network(
            model=model,
            calls=tuple(self.calls),
            tensors=tuple(self.tensors),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            names=self.names,
        )

    def new_value(self, tensor: Any) -> int:
        """Appends a value; returns its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def inline(self, model: Any, inputs: Sequence[int], path: str) -> list[int]:
        """Appends the calls of `model` applied to the values `inputs`; returns its outputs."""
        numbers = {id(t): n for t, n in zip(model.inputs, inputs, strict=True)}
        for node in nodes_in_order(model):
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
            if is_functional(operation) and len(found) == len(operation.inputs):
                outputs = self.inline(operation, found, f"{path}{operation.name}_")
            else:
                self.claim_name(operation, path)
                outputs = [self.new_value(t) for t in node.outputs]
                self.calls.append(Call(operation, args, kwargs, tuple(found), tuple(outputs)))
            numbers.update(zip(map(id, node.outputs), outputs, strict=True))
        return [numbers[id(t)] for t in model.outputs]

    def claim_name(self, operation: Any, path: str) -> None:
        """Gives an operation a unique name, unless it has one already."""
        if id(operation) in self.names:
            return
        taken = self._taken
        name = operation.name
        if name in taken and path:
            name = path + name
        stem, copy = name, 1
        while name in taken:
            copy += 1
            name = f"{stem}_{copy}"
        self.names[id(operation)] = name
        taken.add(name)
