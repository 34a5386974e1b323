"""Equalised networks compute the same, and are quantised with less error."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers as kl

import amc_tf
import tflite_tools
from amc_tf.pruning.equalization import equalize


def _outputs(model, inputs):
    return keras.tree.flatten(model.predict(inputs if inputs[1:] else inputs[0], verbose=0))


@pytest.mark.parametrize("name", zoo.ZOO)
def test_every_network_of_the_zoo_computes_the_same(name):
    model = zoo.build(name)
    x = zoo.sample(model, 4)
    inputs = list(x) if isinstance(x, (list, tuple)) else [x]
    balanced = equalize(model, inputs)
    for a, b in zip(zoo.outputs(model, x), zoo.outputs(balanced, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def _uneven(between, seed=5):
    """A network whose channels have ranges from 1/64 to 64, which the next layer evens out."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    features = between(kl.Conv2D(8, 3, padding="same", name="wide")(inputs))
    features = kl.Conv2D(8, 3, padding="same", activation="relu", name="even")(features)
    model = keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(features)))
    factors = 2.0 ** np.arange(-6, 8, 2, dtype=np.float32)
    factors = np.append(factors, 1.0).astype(np.float32)
    wide, even = model.get_layer("wide"), model.get_layer("even")
    wide.set_weights([w * factors for w in wide.get_weights()])
    kernel, bias = even.get_weights()
    even.set_weights([kernel / factors.reshape(1, 1, 8, 1), bias])
    x = np.random.default_rng(seed).uniform(-1, 1, (32, 8, 8, 3)).astype(np.float32)
    return model, x


BETWEEN = {
    "nothing": lambda x: x,
    "relu": lambda x: kl.ReLU()(x),
    "pooled": lambda x: kl.MaxPooling2D(2)(kl.LeakyReLU(0.1)(x)),
    "norm": lambda x: kl.ReLU()(kl.BatchNormalization()(x)),
    "depthwise": lambda x: kl.DepthwiseConv2D(3, padding="same", activation="relu")(x),
}


@pytest.mark.parametrize("kind", [name for name in BETWEEN if name != "norm"])
def test_uneven_channels_become_even_and_int8_right(kind):
    model, x = _uneven(BETWEEN[kind])
    balanced = equalize(model, [x])
    expected = model.predict(x, verbose=0)
    # Powers of 2: the very same numbers, but for the order of sums.
    np.testing.assert_allclose(balanced.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    errors = []
    for network in (model, balanced):
        content = tflite_tools.convert(network, "int8_float_io", list(x[:, None]))
        received = tflite_tools.LiteRtModel(content).predict(x)
        errors.append(np.sqrt(np.mean((received - expected) ** 2)) / np.ptp(expected))
    assert errors[1] < 0.01 and errors[1] < 0.5 * errors[0]


def test_ranges_by_hand():
    """Two channels of largest 1 and 64, read by kernels of 1: factors 8 and 1/8, about the middle.

    The roots of (largest read) / (largest made) are 1 and 1/8; their exponents 0 and -3 have the
    median -1.5, and become 2 and -2 (halves are rounded to the even number).
    """
    inputs = keras.Input((2,))
    model = keras.Sequential([inputs, kl.Dense(2, use_bias=False), kl.Dense(1, use_bias=False)])
    first, second = model.layers
    first.set_weights([np.diag([1.0, 64.0])])
    second.set_weights([np.ones((2, 1))])
    balanced = equalize(model, [np.ones((1, 2), np.float32)])
    kernels = [layer.kernel.numpy() for layer in balanced.layers if layer.weights]
    np.testing.assert_array_equal(kernels[0], np.diag([4.0, 16.0]))
    np.testing.assert_array_equal(kernels[1], [[0.25], [4.0]])


@pytest.mark.parametrize(
    "between",
    [
        lambda x: kl.ReLU(max_value=6.0)(x),
        lambda x: kl.Activation("sigmoid")(x),
        lambda x: kl.Multiply()([x, kl.Activation("sigmoid")(x)]),
        lambda x: kl.Add()([x, x]),
        lambda x: kl.LayerNormalization()(x),
    ],
)
def test_what_is_not_homogeneous_stays(between):
    model, x = _uneven(between)
    balanced = equalize(model, [x])
    wide = balanced.get_layer("wide").kernel.numpy()
    np.testing.assert_array_equal(wide, model.get_layer("wide").kernel.numpy())


def test_outputs_of_the_network_and_shared_layers_stay():
    keras.utils.set_random_seed(6)
    inputs = keras.Input((4,))
    shared = kl.Dense(4, name="shared")
    seen = kl.Dense(4, name="seen")(inputs)
    model = keras.Model(inputs, [seen, kl.Dense(2)(shared(shared(seen)))])
    assert equalize(model, [np.random.rand(8, 4).astype(np.float32)]) is model


def test_a_copy_is_returned_and_the_model_is_left_alone():
    model, x = _uneven(BETWEEN["relu"])
    before = [w.copy() for w in model.get_weights()]
    balanced = amc_tf.equalize(model, [x])
    assert balanced is not model and balanced.name == model.name
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
