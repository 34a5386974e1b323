"""Errors that TensorFlow differentiates, against the divergence that NumPy computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from amc_tf.recovery.errors import of_outputs, relative
from amc_tf.training.divergence import divergence

RNG = np.random.default_rng(0)
LOGITS, OTHERS = (RNG.normal(0, 2, (40, 5, 4)).astype("float32") for _ in range(2))


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


VALUES = {"logits": lambda x: x, "softmax": _softmax, "sigmoid": _sigmoid}


@pytest.mark.parametrize(
    ("losses", "kinds"),
    [
        (["sparse_categorical_crossentropy"], ["logits"]),
        (["sparse_categorical_crossentropy"], ["softmax"]),
        (["binary_crossentropy"], ["logits"]),
        (["binary_crossentropy"], ["sigmoid"]),
        (["categorical_crossentropy", "binary_crossentropy"], ["softmax", "logits"]),
        (["mse"], ["logits"]),
        (["mse", "categorical_crossentropy"], ["logits", "softmax"]),
    ],
)
def test_errors_of_outputs_add_up_to_the_divergence(losses, kinds):
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, [kl.Dense(4)(inputs) for _ in losses])
    model.compile("sgd", losses)
    measure = divergence(model)
    dense = [VALUES[kind](LOGITS + i) for i, kind in enumerate(kinds)]
    other = [VALUES[kind](OTHERS) for kind in kinds]
    errors = of_outputs(measure, dense)
    triples = zip(errors, dense, other, strict=True)
    found = [float(e(tf.constant(d), tf.constant(o))) for e, d, o in triples]
    sums = measure.name == "KL divergence"
    expected = measure.of(other, dense) * (1 if sums else len(losses))
    assert sum(found) == pytest.approx(expected, rel=1e-4)
    same = [float(e(tf.constant(d), tf.constant(d))) for e, d in zip(errors, dense, strict=True)]
    assert same == pytest.approx([0] * len(same), abs=1e-6)


def test_the_relative_error_is_a_share_of_the_variance():
    dense = np.array([[0.0, 5.0], [2.0, 9.0]], "float32")  # variances 1 and 4
    other = dense + np.array([[1.0, 2.0], [-1.0, 0.0]], "float32")  # squares 1, 4, 1, 0
    assert float(relative(dense)(tf.constant(dense), tf.constant(other))) == pytest.approx(0.6)
