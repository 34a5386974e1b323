"""Outputs of nested models that nobody reads: neither counted nor pruned nor rebuilt."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.pruning.refit import dense, in_order
from amc_tf.runs.model_files import refuse_code


def model(unread=None):
    """A backbone that returns what is read, and something 40 times as large that is not."""
    keras.utils.set_random_seed(0)
    x = inside = keras.Input((8, 8, 3))
    read = kl.Conv2D(6, 3, name="read", activation="relu")(x)
    other = (unread or kl.Conv2D(64, 3, name="large"))(x)
    other = kl.Conv2D(64, 3, name="larger")(other)
    backbone = keras.Model(inside, [read, other], name="backbone")
    x = inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(3, 1, name="stem")(x)
    x = kl.Conv2D(5, 3, name="head", activation="relu")(backbone(x)[0])
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


MACS = 64 * 3 * 3 + 36 * 9 * 3 * 6 + 16 * 9 * 6 * 5 + 5 * 4
PARAMS = (3 * 3 + 3) + (27 * 6 + 6) + (54 * 5 + 5) + (5 * 4 + 4)


def test_costs_and_groups_are_those_of_what_is_read():
    net = model()
    graph = amc_tf.analyze(net)
    assert list(graph.groups) == ["stem", "read", "head"]
    assert amc_tf.macs(graph) == MACS
    assert amc_tf.params(graph) == PARAMS < net.count_params()
    assert {operation.name for operation in graph.network.unread} == {"large", "larger"}
    text = amc_tf.describe(graph)
    assert f"{MACS:,} MACs (100.0% prunable)" in text
    assert "reach no output\n  large, larger" in text


def test_every_way_of_making_the_pruned_network_agrees():
    net = model()
    graph = amc_tf.analyze(net)
    counts = {name: group.channels - 1 for name, group in graph.groups.items()}
    plan = strongest(consumer_magnitude(graph), counts)
    small = amc_tf.rebuild(net, graph, plan)
    assert amc_tf.params(graph, plan) == small.count_params()
    assert amc_tf.macs(graph, plan) == amc_tf.macs(amc_tf.analyze(small))
    assert not {"large", "larger"} & {layer.name for layer in small.layers}
    assert amc_tf.verify(net, graph) < 1e-5
    images = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    for refit in (dense.gather, in_order.gather_in_order):
        assert not [key for key in refit(graph, [images]).refit(plan) if key.startswith("large")]


def test_it_goes_to_keras_2_and_back():
    pytest.importorskip("tf_keras")
    net = model()
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    old = amc_tf.to_keras2(net)
    assert old.count_params() == PARAMS
    back = amc_tf.from_keras2(old)
    np.testing.assert_allclose(
        back.predict(images, verbose=0), net.predict(images, verbose=0), atol=1e-5
    )


def test_code_that_nobody_reads_is_still_code_in_the_file():
    net = model(unread=kl.Lambda(lambda x: x * 2, name="code"))
    with pytest.raises(amc_tf.AmcError, match="'code' .Lambda. holds Python code"):
        refuse_code(amc_tf.analyze(net).network)
