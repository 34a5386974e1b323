"""Values on the way from the inputs to the outputs that a dense and a pruned network share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from amc_tf.graph.flattening import flatten
from amc_tf.graph.network import Call, Network


@dataclasses.dataclass(frozen=True, eq=False)
class Feature:
    """A value of both networks.

    Attributes:
        operation: name of the operation that makes it.
        kept: numbers of the channels of the dense network that the pruned one has.
    """

    operation: str
    kept: np.ndarray


def with_features(model: keras.Model, wanted: Sequence[Feature]) -> keras.Model:
    """Returns a model of the same layers that returns features behind its outputs, in a list.

    Args:
        model: a model whose operations have the names of the features': the dense one, or one made
            by `rebuild`.
        wanted: the features.
    """
    network = flatten(model)
    once = called_once(network)
    calls = {id(once[feature.operation]): feature.operation for feature in wanted}
    found: dict[str, Any] = {}

    def invoke(call: Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        output = call.operation(*args, **kwargs)
        if id(call) in calls:
            (found[calls[id(call)]],) = keras.tree.flatten(output)
        return output

    # Run again, as the values within a nested model are none of the outer one's.
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    outputs = network.run(inputs, invoke)
    return keras.Model(inputs, [*outputs, *(found[feature.operation] for feature in wanted)])


def called_once(network: Network) -> Mapping[str, Call]:
    """Returns the calls of operations that are called once, by the names of these."""
    calls: dict[str, list[Call]] = {}
    for call in network.calls:
        calls.setdefault(network.name(call.operation), []).append(call)
    return {name: found[0] for name, found in calls.items() if len(found) == 1}
