"""A network traced as a TensorFlow function: the sizes of its values, the work of its calls."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from amc_tf.graph.function_macs import NOTHING, Work, work_of
from amc_tf.graph.input_shapes import Shape
from amc_tf.graph.keras_structure import infer
from amc_tf.graph.network import Call, Network


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """What a forward pass of one batch computes, in inference mode.

    Attributes:
        batch: number of samples of the batch: 1 unless the model's inputs fix it.
        shapes: shape of each value, by number; an axis that the operations fold into the batch
            counts there.
        work: work of one sample in each call, in the order of `Network.calls`.
    """

    batch: int
    shapes: Mapping[int, Shape]
    work: Sequence[Work]

    @property
    def sizes(self) -> list[int]:
        """Number of elements of each value for one sample; an open axis counts as 1."""
        return [math.prod(size or 1 for size in shape[1:]) for shape in self.shapes.values()]


def trace(network: Network, input_shapes: Sequence[Shape]) -> Trace:
    """Traces a network.

    A call that cannot be traced is work that is not counted; its outputs are taken as its symbolic
    call describes them.

    Args:
        network: the flat list of calls.
        input_shapes: shape of each input, without the batch axis; None for an open size.
    """
    batch = next((t.shape[0] for t in _inputs(network) if t.shape[0] is not None), 1)
    shapes: dict[int, Shape] = {}
    spans: list[tuple[int, int]] = []
    failed: dict[int, Work] = {}
    varying: list[tf.Tensor] = []
    read: list[tf.Tensor] = []  # by calls that cannot be traced: all that leads there counts

    def known(number: int, found: Any) -> Shape:
        """Returns a value's shape, completed by what the symbolic call said of it."""
        said = (batch, *network.tensors[number].shape[1:])
        if found is None or found.rank != len(said):
            return said
        sizes = zip(found, said, strict=True)
        return tuple(size if size is not None else other for size, other in sizes)

    def forward(*inputs: tf.Tensor) -> list[tf.Tensor]:
        graph = tf.compat.v1.get_default_graph()
        varying.extend(inputs)
        shapes.update((n, known(n, x.shape)) for n, x in zip(network.inputs, inputs, strict=True))

        def invoke(call: Call, args: tuple, kwargs: dict) -> Any:
            before = len(graph.get_operations())
            try:
                # A name that TensorFlow refuses fails here, not inside Keras, whose stack of scopes
                # would keep it: all variables made later in this process would carry the name.
                with tf.name_scope(call.operation.name):
                    out = infer(call.operation, args, kwargs)
                found = [tf.convert_to_tensor(x) for x in keras.tree.flatten(out)]
            except Exception as error:
                failed[len(spans)] = Work(uncounted=(f"not traced: {_first_line(error)}",))
                out = found = [
                    tf.compat.v1.placeholder(network.tensors[n].dtype, known(n, None))
                    for n in call.outputs
                ]
                varying.extend(found)
                given = keras.tree.flatten((args, kwargs))
                read.extend(x for x in given if tf.is_symbolic_tensor(x))
            shapes.update((n, known(n, x.shape)) for n, x in zip(call.outputs, found, strict=True))
            spans.append((before, len(graph.get_operations())))
            return out

        # As in a symbolic call, no state of the layers changes. Below another scope, as when it is
        # trained, a layer's name may begin with an underscore.
        with keras.StatelessScope(), tf.name_scope("network"):
            return [tf.convert_to_tensor(x) for x in network.run(inputs, invoke)]

    specs = [
        tf.TensorSpec((batch, *shape), tensor.dtype)
        for tensor, shape in zip(_inputs(network), input_shapes, strict=True)
    ]
    function = tf.function(forward, autograph=False).get_concrete_function(*specs)
    found = work_of(function.graph, [*function.outputs, *read], varying)
    of_operation = {operation.name: work for operation, work in found}
    operations = [operation.name for operation in function.graph.get_operations()]
    return Trace(
        batch,
        shapes,
        tuple(
            functools.reduce(
                Work.__add__,
                (of_operation[name] for name in operations[start:stop] if name in of_operation),
                failed.get(i, NOTHING),
            ).shared(batch)
            for i, (start, stop) in enumerate(spans)
        ),
    )


def _inputs(network: Network) -> list[Any]:
    return [network.tensors[number] for number in network.inputs]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
