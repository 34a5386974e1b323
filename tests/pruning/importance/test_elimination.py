"""Backward elimination against brute force: every candidate refitted by numpy's solver."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.pruning.importance.elimination import elimination_order
from amc_tf.pruning.refit import dense
from amc_tf.pruning.refit.sampling import linear_inputs

_RNG = np.random.default_rng(0)


def _model(*readers):
    """A hidden layer of six channels and the layers that read it."""
    x = inputs = keras.Input((6, 6, 3))
    x = kl.Conv2D(6, 1, activation="relu", name="hidden")(x)
    outputs = [kl.GlobalAveragePooling2D()(reader(x)) for reader in readers]
    model = keras.Model(inputs, kl.Concatenate()(outputs))
    for weight in model.weights:
        weight.assign(_RNG.normal(size=weight.shape))
    return model


def _least_error(rows, target, columns):
    design = np.column_stack([rows[:, columns], np.ones(len(rows))])
    return np.square(target - design @ np.linalg.lstsq(design, target, rcond=None)[0]).sum()


def test_order_is_that_of_brute_force():
    readers = [kl.Conv2D(4, 3, name="a"), kl.Conv2D(5, 1, strides=2, name="b")]
    model = _model(*readers)
    graph = amc_tf.analyze(model)
    images = _RNG.normal(size=(80, 6, 6, 3)).astype("float32")
    gathered = dense.gather(graph, [images], rows=10**6, ridge=1e-7)
    received = elimination_order(gathered, {})["hidden"]

    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)(images)
    problems = []
    for reader in readers:
        size = np.prod(reader(hidden).shape[1:-1])
        rows = linear_inputs(reader, hidden, np.tile(np.arange(size), (80, 1))).astype(float)
        target = rows @ np.asarray(reader.kernel).reshape(rows.shape[1], -1)
        # Behind the layers, their averages are joined: each counts by its power there.
        power = target.reshape(80, size, -1).mean(axis=1).var(axis=0).sum()
        problems.append((rows, target - target.mean(0), power))

    def loss(left):
        kept = np.isin(np.arange(6), left)
        return sum(
            power
            * _least_error(rows, target, np.tile(kept, rows.shape[1] // 6))
            / np.square(target).sum()
            for rows, target, power in problems
        )

    left, expected = list(range(6)), []
    while left:
        expected.append(min(left, key=lambda c: loss([x for x in left if x != c])))
        left.remove(expected[-1])
    assert np.argsort(received).tolist() == expected


def test_of_twins_one_is_the_first_to_go_however_loud():
    x = inputs = keras.Input((4,))
    x = kl.Dense(4, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, kl.Dense(3, name="reader")(x))
    kernel = _RNG.normal(size=(4, 4)).astype("float32")
    kernel[:, 3] = kernel[:, 1]
    model.get_layer("hidden").kernel.assign(kernel)
    loud = _RNG.normal(size=(4, 3)).astype("float32")
    loud[[1, 3]] *= 5
    model.get_layer("reader").kernel.assign(loud)
    graph = amc_tf.analyze(model)
    images = _RNG.normal(size=(500, 4)).astype("float32")
    order = elimination_order(dense.gather(graph, [images]), {})["hidden"]
    assert np.argmin(order) in (1, 3)
    assert np.argmin(consumer_magnitude(graph)["hidden"]) not in (1, 3)


def test_wide_inputs_are_weighed_one_by_one():
    x = inputs = keras.Input((2, 2, 3))
    x = kl.Flatten()(kl.Conv2D(3, 1, name="hidden")(x))
    model = keras.Model(inputs, kl.Dense(2, name="reader")(x))
    model.get_layer("hidden").kernel.assign(np.diag([1.0, 5.0, 1.0]).reshape(1, 1, 3, 3))
    kernel = np.ones((12, 2))
    kernel[2::3] = 3
    model.get_layer("reader").kernel.assign(kernel)
    graph = amc_tf.analyze(model)
    images = _RNG.normal(size=(200, 2, 2, 3)).astype("float32")
    gathered = dense.gather(graph, [images], max_features=0)
    # Power of the three channels: 1 * 1, 25 * 1, 1 * 9.
    np.testing.assert_array_equal(elimination_order(gathered, {})["hidden"], [0, 2, 1])


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_every_group_of_every_model_gets_an_order(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    arrays = zoo.sample(model, batch=64, seed=3)
    images = arrays if isinstance(arrays, list) else [arrays]
    orders = elimination_order(dense.gather(graph, images, rows=500), consumer_magnitude(graph))
    assert orders.keys() == graph.groups.keys()
    for group_name, group in graph.groups.items():
        np.testing.assert_array_equal(np.sort(orders[group_name]), np.arange(group.channels))
    plan = strongest(orders, {n: max(1, g.channels // 2) for n, g in graph.groups.items()})
    amc_tf.rebuild(model, graph, plan)
