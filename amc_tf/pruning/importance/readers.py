"""The layers that read a group, and how much of the network's outputs passes through each.

What a layer that reads a group cannot restore counts by what it does to the network's outputs (see
`amc_tf.pruning.importance.effects`). Where that is not known, it counts at the end of the linear
path behind the layer, as that is what the refit restores (see `amc_tf.pruning.refit.linear_path`):
a batch norm in between says which of the layer's outputs are strong.

The error of a layer relative to the power of its output means little where that output is added to
a much stronger one. So each is weighted by the share of the outputs that passes through it. An
output of the network has share 1. What one operation reads has the share of what it computes; where
it reads several values, they share it by their power; and a value that several operations read has
the sum of their shares. So the shares of all values between which a network is cut add up to 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from amc_tf.graph.network import Network
from amc_tf.pruning.refit.dense import Consumer, Reconstruction
from amc_tf.pruning.refit.linear_path import follow
from amc_tf.pruning.weights import classes_read, named_weight, numpy_of


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads a group.

    Attributes:
        consumer: the layer and the statistics of its inputs.
        weights: its weights, each output's times what its errors count, float64 (features,
            outputs).
        classes: channel class of each feature, int (features,).
        share: share of the network's outputs that passes through the layer.
    """

    consumer: Consumer
    weights: np.ndarray
    classes: np.ndarray
    share: float


def readers_of(
    refit: Reconstruction, effects: Mapping[str, np.ndarray] | None = None
) -> dict[str, Reader]:
    """Returns the readers whose refit is known, by the name of the layer.

    Args:
        refit: statistics of the dense network, from `amc_tf.pruning.refit.gather`.
        effects: how much each output of a layer moves the network's outputs, by the layer's name
            (see `effects_of`). The weights of others are scaled by the path behind them.
    """
    network = refit.graph.network
    shares = shares_of(network, refit.powers)
    found = {}
    for consumer in refit.consumers:
        site = consumer.site
        layer = site.call.operation
        kernel = numpy_of(named_weight(layer, consumer.kernel))
        weights = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
        classes = classes_read(site, consumer.kernel)
        calls = [call for call in network.calls if call.operation is layer]
        effect = (effects or {}).get(site.name)
        if effect is not None:
            weights = weights * np.sqrt(effect)
        elif len(calls) == 1:
            weights = weights * follow(network, site.call).affine(network).slope
        found[site.name] = Reader(
            consumer,
            weights,
            np.tile(classes, len(weights) // len(classes)),
            sum(shares.get(call.outputs[0], 0.0) for call in calls),
        )
    return found


def shares_of(network: Network, powers: Mapping[int, float]) -> dict[int, float]:
    """Returns the share of a network's outputs that passes through each value, by its number.

    Args:
        network: the network.
        powers: power of each value that an operation reads together with others.
    """
    shares = dict.fromkeys(network.outputs, 1.0)
    for call in reversed(network.calls):
        share = sum(shares.get(number, 0.0) for number in call.outputs)
        read = list(dict.fromkeys(call.inputs))
        parts = np.array([powers.get(number, 1.0) for number in read]) if len(read) > 1 else [1.0]
        total = max(float(np.sum(parts)), np.finfo(float).tiny)
        for number, part in zip(read, parts, strict=True):
            shares[number] = shares.get(number, 0.0) + share * float(part) / total
    return shares
