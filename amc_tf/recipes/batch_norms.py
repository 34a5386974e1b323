"""Batch norm statistics of weights as they are now."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import keras

from amc_tf.graph.flattening import flatten


def reestimate(model: keras.Model, inputs: Iterable[Any], batches: int) -> None:
    """Sets the moving statistics of batch norms to the means over batches.

    In training they trail behind the weights, and belong to none where these are averaged.

    Args:
        model: a model; no weight but the statistics changes.
        inputs: batches of inputs, as the model takes them; at most `batches` are read.
        batches: number of batches; 0 leaves the statistics as they are.
    """
    calls = Counter(call.operation for call in flatten(model).calls)
    # A frozen one keeps its statistics in training, too.
    norms = [x for x in calls if isinstance(x, keras.layers.BatchNormalization) and x.trainable]
    if not norms or not batches:
        return
    momenta = [norm.momentum for norm in norms]
    try:
        for number, x in enumerate(itertools.islice(iter(inputs), batches)):
            for norm in norms:  # a running mean over the batches, of all calls of a shared one
                norm.momentum = (number / (number + 1)) ** (1 / calls[norm])
            model(x, training=True)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
