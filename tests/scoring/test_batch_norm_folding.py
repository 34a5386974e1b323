"""Folded batch norms against numbers worked out by hand, and against the unfolded model."""

import keras
import numpy as np
import pytest
import zoo
from keras import layers as kl
from plans import changed_weights, random_plan

import amc_tf
from amc_tf.scoring.batch_norm_folding import fold


def _kinds(graph):
    return [type(call.operation) for call in graph.network.calls]


def test_a_batch_norm_behind_a_convolution_goes_into_kernel_and_bias():
    inputs = keras.Input((2, 2, 1))
    x = kl.Conv2D(1, 1, use_bias=True, name="conv")(inputs)
    x = kl.BatchNormalization(epsilon=1.0, name="norm")(x)
    model = keras.Model(inputs, kl.Dense(1)(kl.Flatten()(x)))
    model.get_layer("conv").set_weights([np.full((1, 1, 1, 1), 3.0), np.array([5.0])])
    gamma, beta, mean, variance = 4.0, 7.0, 1.0, 3.0
    model.get_layer("norm").set_weights([np.array([v]) for v in (gamma, beta, mean, variance)])
    # scale = 4 / sqrt(3 + 1) = 2; kernel 3 * 2; bias 5 * 2 + 7 - 1 * 2.
    folded = fold(amc_tf.analyze(model))
    kernel, bias = folded.graph.network.model.get_layer("conv").get_weights()
    assert (kernel.item(), bias.item()) == (6.0, 15.0)
    assert kl.BatchNormalization not in _kinds(folded.graph)
    # A refit that moves the mean from 1 to 2 moves the bias by -scale.
    moved = folded.weights({"norm/moving_mean": np.array([2.0])})
    assert moved["conv/bias"].item() == 13.0
    assert sorted(moved) == ["conv/bias", "conv/kernel"]


def test_a_batch_norm_elsewhere_stays_as_scale_and_offset():
    inputs = keras.Input((4, 4, 3))
    x = kl.Conv2D(2, 1, activation="relu")(inputs)
    x = kl.BatchNormalization(epsilon=1.0, scale=False, name="norm")(x)
    model = keras.Model(inputs, kl.Conv2D(2, 1)(x))
    norm = model.get_layer("norm")
    norm.set_weights([np.array([1.0, 2.0]), np.array([4.0, 6.0]), np.array([3.0, 0.0])])
    folding = fold(amc_tf.analyze(model))
    gamma, beta, mean, variance = folding.graph.network.model.get_layer("norm").get_weights()
    # scale = 1 / sqrt(3 + 1), 1 / sqrt(0 + 1); offset = 1 - 4 / 2, 2 - 6 / 1.
    np.testing.assert_array_equal(gamma, [0.5, 1.0])
    np.testing.assert_array_equal(beta, [-1.0, -4.0])
    np.testing.assert_array_equal(mean, [0.0, 0.0])
    np.testing.assert_array_equal(variance, [1.0, 1.0])
    assert folding.fixed == {"norm/moving_mean", "norm/moving_variance"}


@pytest.mark.parametrize("read", ["twice", "as an output"])
def test_a_convolution_that_others_read_keeps_its_weights(read):
    inputs = keras.Input((4, 4, 3))
    y = kl.Conv2D(2, 1, name="conv")(inputs)
    x = kl.BatchNormalization()(y)
    model = keras.Model(inputs, kl.Add()([x, y]) if read == "twice" else [x, y])
    kernel = model.get_layer("conv").get_weights()[0]
    folded = fold(amc_tf.analyze(model)).graph
    assert kl.BatchNormalization in _kinds(folded)
    np.testing.assert_array_equal(folded.network.model.get_layer("conv").get_weights()[0], kernel)


@pytest.mark.parametrize(
    "name",
    ["residual", "depthwise_multiplier", "concatenated", "nested_backbone", "two_outputs"],
)
def test_the_folded_model_computes_the_same_under_any_plan_and_weights(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    folding = fold(graph)
    assert list(folding.graph.groups) == list(graph.groups)
    inputs = zoo.sample(model)
    for seed in range(3):
        plan = random_plan(graph, seed)
        weights = changed_weights(graph, seed)
        expected = zoo.outputs(amc_tf.rebuild(model, graph, plan, weights), inputs)
        small = amc_tf.rebuild(
            folding.graph.network.model, folding.graph, plan, folding.weights(weights)
        )
        for a, b in zip(zoo.outputs(small, inputs), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_frozen_layers_stay_frozen():
    model = zoo.build("residual")
    free = amc_tf.analyze(model)
    name = next(iter(free.groups))
    graph = amc_tf.analyze(model, freeze=[name])
    assert name not in graph.groups and len(graph.groups) == len(free.groups) - 1
    assert list(fold(graph).graph.groups) == list(graph.groups)
