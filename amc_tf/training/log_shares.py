"""Logarithms of the shares that an output holds, in a form that can be differentiated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from amc_tf.training.divergence import CLASSES, LEAST, SIDES


def _log(shares: Any) -> Any:
    return keras.ops.log(keras.ops.clip(shares, LEAST, 1))


def _of_units(values: Any) -> Any:
    parts = [keras.ops.log_sigmoid(values), keras.ops.log_sigmoid(-values)]
    return keras.ops.stack(parts, axis=-1)


def _of_sides(values: Any) -> Any:
    return _log(keras.ops.stack([values, 1 - values], axis=-1))


# (what an output holds, whether as logits) -> function of it, float32, which returns the logarithms
# with each distribution along the last axis.
LOG_SHARES: Mapping[tuple[str, bool], Callable[[Any], Any]] = {
    (CLASSES, True): keras.ops.log_softmax,
    (CLASSES, False): _log,
    (SIDES, True): _of_units,
    (SIDES, False): _of_sides,
}
