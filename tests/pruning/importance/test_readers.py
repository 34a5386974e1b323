"""Shares of the outputs, and weights at the end of the path, against sums by hand."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance.readers import readers_of, shares_of
from amc_tf.pruning.refit.dense import gather

RNG = np.random.default_rng(0)


def test_a_sum_is_shared_by_power_and_nothing_is_lost_on_the_way():
    inputs = keras.Input((6,))
    stream = kl.Dense(5, name="first")(inputs)
    branch = kl.Dense(5, name="second")(kl.Dense(4, activation="relu", name="hidden")(stream))
    outputs = kl.Dense(3, name="last")(kl.Add()([stream, branch]))
    network = amc_tf.analyze(keras.Model(inputs, outputs)).network
    at = {network.name(call.operation): call for call in network.calls}
    joined = next(call.inputs for call in network.calls if len(call.inputs) == 2)
    shares = shares_of(network, dict(zip(joined, (3.0, 1.0), strict=True)))
    assert shares[at["last"].outputs[0]] == 1
    assert shares[at["second"].outputs[0]] == shares[at["hidden"].outputs[0]] == 0.25
    # The stream itself, and through the branch.
    assert shares[at["first"].outputs[0]] == pytest.approx(0.75 + 0.25)


def test_every_output_of_the_network_counts():
    inputs = keras.Input((6,))
    hidden = kl.Dense(5, name="hidden")(inputs)
    model = keras.Model(inputs, [kl.Dense(3, name="a")(hidden), kl.Dense(2, name="b")(hidden)])
    network = amc_tf.analyze(model).network
    number = next(c.outputs[0] for c in network.calls if network.name(c.operation) == "hidden")
    assert shares_of(network, {})[number] == 2


def test_weights_are_scaled_as_the_batch_norm_behind_them_does():
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(6, 3, name="maker")(x)
    x = kl.Conv2D(4, 1, use_bias=False, name="reader")(x)
    x = kl.ReLU()(kl.BatchNormalization(name="norm")(x))
    model = keras.Model(inputs, kl.GlobalAveragePooling2D()(x))
    norm = model.get_layer("norm")
    for weight in (norm.gamma, norm.moving_variance):
        weight.assign(RNG.uniform(0.5, 2, 4))
    graph = amc_tf.analyze(model)
    images = RNG.normal(size=(20, 8, 8, 3)).astype("float32")
    reader = readers_of(gather(graph, [images]))["reader"]
    scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    kernel = model.get_layer("reader").kernel.numpy().reshape(6, 4)
    np.testing.assert_allclose(reader.weights, kernel * scale, rtol=1e-4)
    assert reader.share == 1


def test_powers_are_the_variances_of_what_is_added():
    inputs = keras.Input((6,))
    a, b = kl.Dense(5, name="a")(inputs), kl.Dense(5, name="b")(inputs)
    model = keras.Model(inputs, kl.Dense(2)(kl.Add()([a, b])))
    graph = amc_tf.analyze(model)
    x = RNG.normal(size=(300, 6)).astype("float32")
    found = gather(graph, [x])
    outputs = keras.Model(inputs, [a, b]).predict(x, verbose=0)
    shares = [found.powers[call.outputs[0]] for call in graph.network.calls[:2]]
    np.testing.assert_allclose(shares, [y.var(axis=0).sum() for y in outputs], rtol=1e-3)
