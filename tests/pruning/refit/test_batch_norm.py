"""Batch norm statistics of the pruned network."""

import blobs
import keras
import numpy as np
import pytest
from keras import layers as kl
from plans import random_plan

import amc_tf
from amc_tf.pruning.refit.batch_norm import Reestimated
from amc_tf.pruning.refit.dense import gather
from amc_tf.pruning.refit.methods import NoRefit
from amc_tf.scoring.masked_scorer import MaskedScorer
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.scoring.tflite_scorer import LiteScorer


@pytest.fixture(scope="module")
def trained():
    model = blobs.trained(epochs=2)
    return model, amc_tf.analyze(model)


def _inputs_of_norm(model, x):
    norm = next(layer for layer in model.layers if isinstance(layer, kl.BatchNormalization))
    return norm, np.asarray(keras.Model(model.inputs, norm.input)(x))


@pytest.mark.parametrize("least_squares", [False, True])
def test_statistics_are_those_of_the_pruned_networks_own_activations(trained, least_squares):
    model, graph = trained
    images, _ = blobs.data(300, 5)
    inner = gather(graph, [images]) if least_squares else NoRefit()
    refit = Reestimated(graph, [images], inner, batch_size=100)
    refit.refit(random_plan(graph, 3))  # nothing of it is left in the next
    plan = random_plan(graph, 0)
    weights = refit.refit(plan)
    small = amc_tf.rebuild(model, graph, plan, weights)
    norm, seen = _inputs_of_norm(small, images)
    batches = seen.reshape(3, 100, *seen.shape[1:])
    axes = (1, 2, 3)
    np.testing.assert_allclose(norm.moving_mean, batches.mean(axes).mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, batches.var(axes).mean(0), rtol=1e-3)
    if least_squares:
        others = {k: v for k, v in weights.items() if "moving" not in k}
        expected = {k: v for k, v in inner.refit(plan).items() if "moving" not in k}
        assert others.keys() == expected.keys()
        for key in others:
            np.testing.assert_array_equal(others[key], expected[key])


def test_scorers_agree_and_the_dense_network_is_left_alone(trained):
    model, graph = trained
    task = blobs.task()
    refit = Reestimated(graph, task.calibration_inputs(model), NoRefit())
    lite, masked = LiteScorer(graph, task, refit), MaskedScorer(graph, task, refit)
    plain = LiteScorer(graph, task, None)
    plan = random_plan(graph, 1)
    a, b = lite.outputs(plan)[0], masked.outputs(plan)[0]
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert np.abs(a - plain.outputs(plan)[0]).max() > 1e-3
    np.testing.assert_array_equal(lite.outputs(None)[0], plain.outputs(None)[0])


def test_a_batch_norm_that_cannot_be_folded_is_scored_masked():
    x = inputs = keras.Input((6, 6, 3))
    x = kl.BatchNormalization(name="first")(x)
    x = kl.Conv2D(8, 3, activation="relu")(x)
    x = kl.BatchNormalization(name="behind_a_rectifier")(x)
    model = keras.Model(inputs, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    images = np.random.default_rng(0).normal(size=(20, 6, 6, 3)).astype("float32")
    data = images, np.arange(20) % 3
    graph = amc_tf.analyze(model)
    score = fastest_scorer(graph, amc_tf.Task(data, data), Reestimated(graph, [images], NoRefit()))
    assert isinstance(score, MaskedScorer)
    assert 0 <= score(random_plan(graph, 0)) <= 1
