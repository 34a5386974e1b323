"""Values on the way from the inputs to the outputs that a dense and a pruned network share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from amc_tf.graph.network import Call, Network, flatten


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
    values = [network.tensors[once[feature.operation].outputs[0]] for feature in wanted]
    return keras.Model(model.inputs, [*model.outputs, *values])


def called_once(network: Network) -> Mapping[str, Call]:
    """Returns the calls of operations that are called once, by the names of these."""
    calls: dict[str, list[Call]] = {}
    for call in network.calls:
        calls.setdefault(network.name(call.operation), []).append(call)
    return {name: found[0] for name, found in calls.items() if len(found) == 1}
