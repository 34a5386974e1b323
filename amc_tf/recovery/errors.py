"""How far outputs and features are from the dense network's, as TensorFlow differentiates it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from amc_tf.training.divergence import CLASSES, LEAST, SIDES, Divergence

# (the dense network's values, others) -> the mean error of the samples.
Error = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def of_outputs(measure: Divergence, dense: Sequence[np.ndarray]) -> list[Error]:
    """Returns the error of each output: what `measure` sums over them.

    Args:
        measure: how far outputs are from the dense network's.
        dense: its outputs on all samples.
    """
    found = []
    for kind, outputs, logits in zip(measure.kinds, dense, measure.logits(dense), strict=True):
        if kind == CLASSES:
            found.append(_kl(_log_of_logits if logits else _log_of_shares))
        elif kind == SIDES:
            found.append(_kl(_log_of_units if logits else _log_of_sides))
        else:
            found.append(relative(outputs))
    return found


def relative(dense: np.ndarray, least: float = 0.0) -> Error:
    """Returns the squared error relative to the variance of values over samples.

    Args:
        dense: values of the dense network (samples, ...).
        least: share of the mean square that is added to the variance, as values that are nearly
            the same in all samples would outweigh all others.
    """
    values = dense.astype(np.float64)
    variance = float(values.var(axis=0).mean() + least * np.square(values).mean())
    variance += float(np.finfo(np.float32).tiny)

    def error(of_dense: tf.Tensor, of_other: tf.Tensor) -> tf.Tensor:
        difference = tf.cast(of_other, tf.float32) - tf.cast(of_dense, tf.float32)
        return tf.reduce_mean(tf.square(difference)) / variance

    return error


def _kl(logs: Callable[[tf.Tensor], tf.Tensor]) -> Error:
    def error(of_dense: tf.Tensor, of_other: tf.Tensor) -> tf.Tensor:
        p, q = (logs(tf.cast(values, tf.float32)) for values in (of_dense, of_other))
        return tf.reduce_mean(tf.reduce_sum(tf.exp(p) * (p - q), axis=-1))

    return error


def _log_of_logits(values: tf.Tensor) -> tf.Tensor:
    return tf.nn.log_softmax(values)


def _log_of_shares(values: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.clip_by_value(values, LEAST, 1))


def _log_of_units(values: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.math.log_sigmoid(values), tf.math.log_sigmoid(-values)], axis=-1)


def _log_of_sides(values: tf.Tensor) -> tf.Tensor:
    return _log_of_shares(tf.stack([values, 1 - values], axis=-1))
