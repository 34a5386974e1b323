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

from amc_tf.graph.output_specs import tensors_of


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
        unread_weights: paths of weights of the layers that were looked into, which no call reads.
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
    unread_weights: tuple[str, ...] = ()
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
            values.update(zip(call.outputs, tensors_of(out), strict=True))
            # Activations of a whole calibration set are large, so each is dropped after its
            # last reader.
            for n in (*call.inputs, *call.outputs):
                if n not in kept and last_use.get(n, -1) <= i:
                    values.pop(n, None)
        return [values[n] for n in self.outputs]
