"""How much layers move the network's outputs, against Jacobians by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance import effects
from amc_tf.pruning.importance.criteria import IMPORTANCES
from amc_tf.pruning.importance.effects import effects_of
from amc_tf.training.divergence import divergence

RNG = np.random.default_rng(0)
X = RNG.normal(size=(250, 6, 6, 3)).astype("float32")


def _net(activation="relu"):
    """A convolution, what follows it, and five classes; fused or not, it is the same network."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((6, 6, 3))
    fused = activation if isinstance(activation, str) else None
    x = kl.Conv2D(4, 3, activation=fused, name="reader")(x)
    if fused is None:
        x = activation(x)
    x = kl.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, kl.Dense(5, activation="softmax", name="last")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def _effects(model, names=("reader",), images=X, seed=0):
    noise = divergence(model).noise
    return effects_of(amc_tf.analyze(model), [images], names, noise, seed)


def test_effects_are_those_of_the_fisher_information():
    model = _net()
    reader, last = model.get_layer("reader"), model.get_layer("last")
    # By hand: the mean over positions passes a gradient W / positions to each that is above 0.
    before = tf.nn.conv2d(X, reader.kernel, 1, "VALID") + reader.bias
    above = (before.numpy() > 0).sum(axis=(1, 2))  # (images, channels)
    p = model.predict(X, verbose=0).astype(float)
    fisher = np.stack([np.diag(row) - np.outer(row, row) for row in p])
    kernel = last.kernel.numpy().astype(float)
    through = np.einsum("ck,nkl,cl->nc", kernel, fisher, kernel) / 16**2
    expected = (through * above).mean(axis=0)
    found = np.mean([_effects(model, seed=seed)["reader"] for seed in range(20)], axis=0)
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_a_fused_rectifier_is_one_behind_the_layer():
    apart = _effects(_net(kl.ReLU()))["reader"]
    np.testing.assert_allclose(_effects(_net())["reader"], apart, rtol=1e-4)


def test_effects_are_the_same_where_the_network_cannot_be_traced(monkeypatch):
    found = _effects(_net())["reader"]
    monkeypatch.setattr(effects, "traced", lambda network, run: run)
    np.testing.assert_allclose(_effects(_net())["reader"], found, rtol=1e-4)


def test_calls_of_a_shared_layer_add_up():
    inputs = keras.Input((4,))
    shared = kl.Dense(4, use_bias=False, name="shared")
    shared.build((None, 4))
    kernel = RNG.normal(size=(4, 4)).astype("float32")
    shared.kernel.assign(kernel)
    model = keras.Model(inputs, shared(shared(inputs)))
    model.compile("sgd", "mse")
    images = RNG.normal(size=(250, 4)).astype("float32")
    found = _effects(model, ["shared"], images)["shared"]
    outputs = images @ kernel @ kernel
    unit = 2 / (4 * outputs.var(axis=0).mean())  # of a squared change of an output
    expected = unit * (1 + np.square(kernel).sum(axis=1))
    np.testing.assert_allclose(found, expected, rtol=0.5)


def test_what_has_no_gradient_is_left_out():
    inputs = keras.Input((6,))
    x = kl.Dense(4, name="before")(inputs)
    x = kl.Lambda(lambda t: keras.ops.cast(keras.ops.round(t), "int32"), name="whole")(x)
    x = kl.Lambda(lambda t: keras.ops.cast(t, "float32"), name="back")(x)
    model = keras.Model(inputs, kl.Dense(2, name="behind")(x))
    model.compile("sgd", "mse")
    images = RNG.normal(size=(40, 6)).astype("float32")
    assert set(_effects(model, ["before", "behind"], images)) == {"behind"}


def test_a_channel_that_nothing_hears_is_the_first_to_go():
    """The loudest channel moves an output of its reader that the network ignores."""
    x = inputs = keras.Input((5,))
    x = kl.Dense(3, name="hidden")(x)
    x = kl.Dense(2, name="reader")(x)
    model = keras.Model(inputs, kl.Dense(4, name="last")(x))
    model.compile("sgd", "mse")
    model.get_layer("hidden").kernel.assign(np.eye(5, 3))
    model.get_layer("reader").kernel.assign([[9, 0], [0, 1], [0, 2]])
    model.get_layer("last").kernel.assign([[0, 0, 0, 0], [1, 1, 1, 1]])
    data = RNG.normal(size=(300, 5)).astype("float32"), np.zeros((300, 4), "float32")
    task = amc_tf.Task(train=data, validation=data, metric="loss")
    order = IMPORTANCES["elimination"](amc_tf.analyze(model), task)["hidden"]
    assert np.argsort(order).tolist() == [0, 1, 2]
    assert order[0] == pytest.approx(0)
