"""Batch norm statistics of weights as they are now."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import keras

from amc_tf.graph.network import flatten


def reestimate(model: keras.Model, inputs: Iterable[Any], batches: int) -> None:
    """Sets the moving statistics of batch norms to the means over batches.

    In training they trail behind the weights, and belong to none where these are averaged.

    Args:
        model: a model; no weight but the statistics changes.
        inputs: batches of inputs, as the model takes them; at most `batches` are read.
        batches: number of batches; 0 leaves the statistics as they are.
    """
    norms = [
        operation
        for operation in flatten(model).operations()
        # A frozen one keeps its statistics in training, too.
        if isinstance(operation, keras.layers.BatchNormalization) and operation.trainable
    ]
    if not norms or not batches:
        return
    momenta = [norm.momentum for norm in norms]
    try:
        for number, x in enumerate(itertools.islice(iter(inputs), batches)):
            for norm in norms:
                norm.momentum = number / (number + 1)  # of a running mean over the batches
            model(x, training=True)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
