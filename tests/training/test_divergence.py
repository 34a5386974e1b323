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


@pytest.mark.parametrize(
    ("loss", "dense"),
    [
        ("sparse_categorical_crossentropy", _softmax(LOGITS)),
        ("categorical_crossentropy", LOGITS),
        ("binary_crossentropy", 1 / (1 + np.exp(-LOGITS))),
        ("binary_crossentropy", LOGITS),
        ("sparse_categorical_crossentropy", LOGITS.reshape(10, 5, 4)),
        ("mse", LOGITS),
    ],
    ids=["shares", "logits", "sides", "logits of sides", "positions", "numbers"],
)
def test_noise_says_what_a_small_change_costs(loss, dense):
    measure = divergence(_model(loss))
    change = 1e-3 * OTHERS.reshape(dense.shape).astype(float)
    if loss.startswith("sparse") and dense.min() >= 0:
        change -= change.mean(axis=-1, keepdims=True)  # shares remain shares
        change *= dense
        change -= dense * change.sum(axis=-1, keepdims=True)
    expected = measure.of([dense + change], [dense.astype(float)])
    rng = np.random.default_rng(1)
    axes = tuple(range(1, dense.ndim))
    drawn = [(measure.noise([dense], rng)[0] * change).sum(axis=axes) for _ in range(400)]
    assert np.mean(np.square(drawn)) / 2 == pytest.approx(expected, rel=0.05)
    assert abs(np.mean(drawn)) < 0.05 * np.std(drawn)


def test_noise_of_several_outputs_is_of_their_mean_and_of_their_sum():
    rng = np.random.default_rng(2)
    for loss, factor in (("mse", 1 / 2), ("categorical_crossentropy", 1.0)):
        one = divergence(_model(loss)).noise([np.tile(LOGITS, (400, 1))], rng)[0]
        two = divergence(_model([loss] * 2, 2)).noise([np.tile(LOGITS, (400, 1))] * 2, rng)
        assert np.square(two[1]).mean() == pytest.approx(factor * np.square(one).mean(), rel=0.05)
