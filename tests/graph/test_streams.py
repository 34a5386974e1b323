"""Which groups are residual streams, derived by hand."""

import keras
import pytest
import zoo
from keras import layers as kl

import amc_tf
from amc_tf.graph.streams import streams


def _of(outputs, inputs):
    head = kl.Dense(2, name="head")(kl.GlobalAveragePooling2D()(outputs))
    return streams(amc_tf.analyze(keras.Model(inputs, head)))


@pytest.mark.parametrize("joined", [kl.Add(), lambda pair: pair[0] + pair[1]])
def test_a_sum_of_two_layers_is_a_stream_and_its_branch_is_none(joined):
    x = inputs = keras.Input((8, 8, 3))
    x = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(8, 3, padding="same", name="stem")(x)))
    y = kl.Conv2D(5, 3, padding="same", name="inner")(x)
    y = kl.Conv2D(8, 1, name="outer")(kl.DepthwiseConv2D(3, padding="same")(y))
    x = kl.ReLU()(joined([x, kl.BatchNormalization()(y)]))
    assert _of(kl.Conv2D(7, 3, name="last")(x), inputs) == {"stem"}


def test_gates_and_sums_of_one_layer_are_none():
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, name="stem")(x)
    gate = kl.Dense(8, "sigmoid")(kl.Dense(3)(kl.GlobalAveragePooling2D(keepdims=True)(x)))
    x = kl.Multiply()([x, gate])
    assert _of(kl.Add()([x, kl.ReLU()(x)]), inputs) == {"stem"}  # stem and gate, both in the sum
    x = kl.Conv2D(6, 3, name="alone")(x)
    assert _of(kl.Add()([x, kl.ReLU()(x)]), inputs) == set()


def test_every_part_of_a_concatenation_that_is_summed():
    x = inputs = keras.Input((8, 8, 3))
    a, b, c = (kl.Conv2D(n, 3, name=name)(x) for n, name in ((3, "a"), (5, "b"), (8, "c")))
    assert _of(kl.Add()([kl.Concatenate()([a, b]), c]), inputs) == {"a", "b"}


def test_slices_of_a_layer_of_which_one_is_summed():
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, name="both")(x)
    y = kl.Conv2D(5, 1, name="other")(x[..., 3:])
    groups = amc_tf.analyze(
        keras.Model(inputs, kl.Dense(2)(kl.GlobalAveragePooling2D()(x[..., :5] + y)))
    ).groups
    found = _of(x[..., :5] + y, inputs)
    assert found and all("other" in groups[name].producers for name in found)


def test_a_plain_network_has_none():
    assert streams(amc_tf.analyze(zoo.three_convolutions())) == set()
