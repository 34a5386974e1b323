"""The distance of outputs, against Keras' own and by hand."""

import keras
import numpy as np
import pytest
from keras import layers as kl

from amc_tf.training.divergence import divergence

RNG = np.random.default_rng(0)
LOGITS, OTHERS = RNG.normal(size=(2, 50, 4)).astype("float32")


def _model(loss, outputs=1):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [kl.Dense(4)(inputs) for _ in range(outputs)])
    model.compile("sgd", loss)
    return model


def _softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def _of(loss, other, dense):
    measure = divergence(_model(loss))
    return measure.name, measure.of([other], [dense])


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_of_classes_it_is_the_divergence_of_probabilities_and_of_logits(loss):
    p, q = _softmax(LOGITS), _softmax(OTHERS)
    expected = float(np.mean(keras.losses.kl_divergence(p, q)))
    assert _of(loss, q, p) == ("KL divergence", pytest.approx(expected, rel=1e-4))
    from_logits = keras.losses.get(loss)
    assert _of(from_logits, OTHERS + 7, LOGITS)[1] == pytest.approx(expected, rel=1e-4)


def test_of_several_labels_it_is_that_of_each_yes_and_no():
    p, q = (1 / (1 + np.exp(-x.astype(float))) for x in (LOGITS, OTHERS))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    for other, dense in ((q, p), (OTHERS, LOGITS)):
        found = _of("binary_crossentropy", other, dense)
        assert found == ("KL divergence", pytest.approx(expected, rel=1e-4))


def test_of_numbers_it_is_the_share_of_the_variance():
    dense = np.array([[0.0, 5.0], [2.0, 9.0]], "float32")  # variances 1 and 4
    other = dense + [[1.0, 2.0], [-1.0, 0.0]]  # squared errors 1, 4, 1, 0
    name, found = _of("mse", other, dense)
    assert name == "relative squared error" and found == pytest.approx((6 / 4) / 2.5)
    assert _of("mse", dense, dense)[1] == 0
    assert _of("mse", np.full_like(dense, np.nan), dense)[1] == np.inf


def test_several_outputs_are_of_one_measure():
    classes = _model(["sparse_categorical_crossentropy"] * 2, 2)
    one = _of("sparse_categorical_crossentropy", OTHERS, LOGITS)[1]
    assert divergence(classes).of([OTHERS, LOGITS], [LOGITS, LOGITS]) == pytest.approx(one)
    mixed = divergence(_model(["sparse_categorical_crossentropy", "mse"], 2))
    assert mixed.name == "relative squared error"
    halves = [_of("mse", a, LOGITS)[1] / 2 for a in (OTHERS, 2 * LOGITS)]
    found = mixed.of([OTHERS, 2 * LOGITS], [LOGITS, LOGITS])
    assert found == pytest.approx(sum(halves))


def test_an_absent_class_is_no_infinity():
    certain = np.eye(4, dtype="float32")
    found = _of("categorical_crossentropy", certain[::-1], certain)[1]
    assert found == pytest.approx(-np.log(1e-7), rel=1e-3)
