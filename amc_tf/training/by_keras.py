"""Training and evaluation of those who give data but no code."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np

from amc_tf import story
from amc_tf.errors import AmcError
from amc_tf.training.data import Data, for_keras
from amc_tf.training.forms import ArrayBatches, batches_of

# Bytes of training arrays up to which Keras copies them into its own pipeline.
_KERAS_COPIES = 256 * 2**20


def fit_by_keras(
    model: keras.Model, train: Data, batch_size: int, steps: int | None, epochs: int
) -> None:
    """Trains a compiled model in place by `Model.fit`.

    Args:
        model: the model.
        train: training data.
        batch_size: batch size for arrays.
        steps: number of batches in an epoch; None for all.
        epochs: number of epochs.
    """
    more = {"epochs": epochs, "steps_per_epoch": steps, "verbose": 2 * story.shows_progress()}
    if not isinstance(train, tuple):
        model.fit(for_keras("train", train, batch_size, steps), **more)
        return
    arrays = batches_of("train", train, batch_size)
    assert isinstance(arrays, ArrayBatches)
    if arrays.bytes > _KERAS_COPIES:
        # Python's generator, so that keras.utils.set_random_seed repeats the order.
        order = np.random.default_rng(random.getrandbits(64))
        model.fit(arrays.dataset(order), **more)
        return
    x, y, weight = arrays.parts
    model.fit(x, y, sample_weight=weight, batch_size=batch_size, **more)


def evaluate_by_keras(model: keras.Model, data: Any, metric: str) -> Any:
    """Returns the value of a metric of a compiled model on data that `Model.evaluate` takes.

    Raises:
        AmcError: the model does not report the metric.
    """
    logs = model.evaluate(data, verbose=0, return_dict=True)
    if metric not in logs:
        losses = {name for name in logs if name == "loss" or name.endswith("_loss")}
        offered = [repr(name) for name in logs if name not in losses]
        offered += [f"{name!r} (mode min)" for name in logs if name in losses]
        raise AmcError(
            f"the model does not report the metric {metric!r}; it reports "
            f"{', '.join(offered)}: name one of these, or add it in compile(metrics=)"
        )
    return logs[metric]
