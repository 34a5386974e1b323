"""How far outputs and features are from the dense network's, as TensorFlow differentiates it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from amc_tf.training.divergence import Divergence
from amc_tf.training.log_shares import LOG_SHARES

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
        logs = LOG_SHARES.get((kind, logits))
        found.append(relative(outputs) if logs is None else _kl(logs))
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
