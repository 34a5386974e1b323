"""What a model scores that has learnt nothing, in closed form."""

import blobs
import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.scoring.constant_answer import best_constant
from amc_tf.training.metric import Metric

METRIC = Metric()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")


def _net(units, activation=None, heads=1):
    inputs = keras.Input((4,))
    outputs = [kl.Dense(units, activation, name=f"head{i}")(inputs) for i in range(heads)]
    return keras.Model(inputs, outputs[0] if heads == 1 else outputs)


def _task(y, metric, **changes):
    return amc_tf.Task(train=(X, y), validation=(X, y), metric=metric, **changes)


def test_classes_the_share_of_the_commonest():
    y = np.array([2] * 23 + [0] * 17 + [1] * 10)
    for labels, loss in (
        (y, "sparse_categorical_crossentropy"),
        (np.eye(3)[y], "categorical_crossentropy"),
    ):
        net = _net(3, "softmax")
        net.compile("sgd", loss, metrics=["accuracy"])
        assert best_constant(_task(labels, "accuracy"), net, METRIC) == pytest.approx(23 / 50)


def test_binary_the_larger_share():
    y = np.array([1.0] * 18 + [0.0] * 32)
    net = _net(1, "sigmoid")
    net.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    assert best_constant(_task(y, "accuracy"), net, METRIC) == pytest.approx(32 / 50)


def test_segmentation_the_commonest_class_of_each_position():
    inputs = keras.Input((8, 8, 1))
    net = keras.Model(inputs, kl.Conv2D(3, 1, activation="softmax")(inputs))
    net.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    y = np.zeros((6, 8, 8), "int32")
    y[:, :4] = 1
    y[0, 0, 0] = 2  # the only pixel that differs from its position's class
    x = RNG.normal(size=(6, 8, 8, 1)).astype("float32")
    task = amc_tf.Task(train=(x, y), validation=(x, y))
    assert best_constant(task, net, METRIC) == pytest.approx(1 - 1 / (6 * 64))


def test_the_users_own_evaluate_is_asked():
    y = RNG.normal(size=(50, 2)).astype("float32")

    def explained(model, data):
        x, wanted = data
        error = np.square(model.predict(x, verbose=0) - wanted).sum()
        return 1 - error / np.square(wanted - wanted.mean(0)).sum()

    found = best_constant(_task(y, "accuracy", evaluate=explained), _net(2), METRIC)
    assert found == pytest.approx(0, abs=1e-5)  # the mean explains nothing


def test_a_sequential_model():
    """It names no outputs."""
    x, y = blobs.data(120, 0)
    model = keras.Sequential([keras.Input((8, 8, 1)), kl.Flatten(), kl.Dense(4)])
    blobs.compile_model(model)
    task = blobs.task(train=(x, y), validation=(x, y))
    task.check(model)
    found = best_constant(task, model, task.metric_of(model))
    assert found == pytest.approx(np.bincount(y).max() / len(y))


def test_heads_and_labels_by_name():
    y = {"head0": np.array([1] * 40 + [0] * 10), "head1": np.array([0] * 30 + [1] * 20)}
    net = _net(2, "softmax", heads=2)
    net.compile(
        "sgd",
        {"head0": "sparse_categorical_crossentropy", "head1": "sparse_categorical_crossentropy"},
        metrics={"head0": ["accuracy"], "head1": ["accuracy"]},
    )
    assert best_constant(_task(y, "head0_accuracy"), net, METRIC) == pytest.approx(40 / 50)
    assert best_constant(_task(y, "head1_accuracy"), net, METRIC) == pytest.approx(30 / 50)


def test_nothing_is_said_where_nothing_is_known():
    open_sizes = keras.Input((None, None, 1))
    net = keras.Model(open_sizes, kl.Conv2D(3, 1, activation="softmax")(open_sizes))
    net.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    y = np.zeros((6, 8, 8), "int32")
    x = RNG.normal(size=(6, 8, 8, 1)).astype("float32")
    assert best_constant(amc_tf.Task(train=(x, y), validation=(x, y)), net, METRIC) is None

    def no_fit_for_others(model, data):
        return model.get_layer("stem").weights[0].shape[0] / 10

    task = blobs.task(evaluate=no_fit_for_others)
    assert best_constant(task, blobs.model(), METRIC) is None


def test_ignored_labels_count_for_no_class():
    y = np.array([-1] * 30 + [1] * 12 + [0] * 8)
    net = _net(2, "softmax")
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    net.compile("sgd", loss, metrics=["accuracy"])
    assert best_constant(_task(y, "accuracy"), net, METRIC) == pytest.approx(12 / 50)
