"""A refit whose pruned networks are run by LiteRT, against the same refit run by Keras."""

import logging
from concurrent.futures import ThreadPoolExecutor

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as kl
from plans import random_plan

import amc_tf
from amc_tf.pruning.refit.in_order import gather_in_order
from amc_tf.pruning.refit.keras_runner import KerasRunner
from amc_tf.pruning.verification import halved
from amc_tf.scoring.batch_norm_folding import NotCarriedError, fold
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.scoring.tflite_engine import LiteEngine
from amc_tf.scoring.tflite_runner import LiteRunner
from amc_tf.scoring.tflite_scorer import LiteScorer
from amc_tf.scoring.tflite_values import matched
from amc_tf.sparsity.refit import SparseReconstruction


def _norm_behind_activation():
    x = inputs = keras.Input((8, 8, 3))
    for filters in (6, 8):
        x = kl.BatchNormalization()(kl.Conv2D(filters, 3, activation="relu")(x))
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


def _two_inputs():
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 2))
    x = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(6, 3, padding="same")(a)))
    y = kl.Conv2D(6, 3, padding="same", activation="relu")(b)
    z = kl.Conv2D(5, 1, activation="relu")(kl.Add()([x, y]))
    return keras.Model([a, b], kl.Dense(3)(kl.GlobalAveragePooling2D()(z)))


def _clipped_branch():
    """A rectifier that clips above too, behind a sum of the stream and a separable branch."""
    x = inputs = keras.Input((8, 8, 3))
    x = kl.ReLU(6.0)(kl.BatchNormalization()(kl.Conv2D(8, 3, padding="same")(x)))
    for _ in range(2):
        y = kl.ReLU(6.0)(kl.BatchNormalization()(kl.Conv2D(10, 1)(x)))
        y = kl.ReLU(6.0)(kl.BatchNormalization()(kl.DepthwiseConv2D(3, padding="same")(y)))
        x = kl.Add()([x, kl.BatchNormalization()(kl.Conv2D(8, 1, use_bias=False)(y))])
    return keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))


OWN = {f.__name__: f for f in (_norm_behind_activation, _two_inputs, _clipped_branch)}


def _built(name):
    if name not in OWN:
        return zoo.build(name)
    keras.utils.set_random_seed(0)
    model, rng = OWN[name](), np.random.default_rng(0)
    for weight in model.weights:
        positive = "variance" in weight.name
        low, high = (0.5, 1.5) if positive else (-0.7, 0.7)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


def _has_exact_roots():
    """Whether the converter finds that a batch norm of mean 0 and variance 1 is its gamma alone.

    It multiplies gamma by TensorFlow's inverse root of 1, which is 0.9999999 with AVX-512 (2.21).
    """
    return bool((tf.math.rsqrt(tf.ones(16)) == 1).numpy().all())


def _images(model, count=90):
    arrays = zoo.sample(model, batch=count, seed=3)
    return arrays if isinstance(arrays, list) else [arrays]


def _runner(graph):
    folding = fold(graph)
    engine = LiteEngine(folding.graph, fixed=folding.fixed, batch_size=4)
    return lambda stops, images: LiteRunner(graph, folding, engine, stops, images)


def _same(received, expected):
    assert set(received) == set(expected)
    for name, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(received[name], value, rtol=0, atol=1e-3 * scale, err_msg=name)


@pytest.mark.parametrize(
    "name",
    [
        "residual",
        "depthwise_multiplier",  # with a separable convolution, which the file holds as two
        "zero_padded_shortcut",
        "squeeze_excite",
        "nested_backbone",
        "one_dimensional",  # of other shapes in the file
        "sequential_flatten",
        *OWN,
    ],
)
def test_the_weights_are_those_of_a_run_by_keras(name):
    model = _built(name)
    graph = amc_tf.analyze(model)
    # 90 images are no multiple of the file's batch.
    by_keras = gather_in_order(graph, _images(model), ridges=(0.1,), rounds=2)
    if name == "_norm_behind_activation" and not _has_exact_roots():
        with pytest.raises(NotCarriedError, match="gamma' is not copied"):
            _runner(graph)
        return
    by_litert = by_keras.run_by(_runner(graph))
    assert isinstance(by_keras.runner, KerasRunner)
    assert by_keras.refit(halved(graph))
    for plan in (halved(graph), random_plan(graph, 1)):
        _same(by_litert.refit(plan), by_keras.refit(plan))


def test_single_weights_are_refitted_as_by_keras():
    model = _built("residual")
    graph = amc_tf.analyze(model)
    rng = np.random.default_rng(1)
    kernels = {
        f"{site.name}/kernel": np.asarray(site.call.operation.kernel)
        for site in graph.sites
        if isinstance(site.call.operation, kl.Conv2D)
    }
    masks = {name: rng.random(value.shape) < 0.5 for name, value in kernels.items()}
    sparse = {name: value * masks[name] for name, value in kernels.items()}
    by_keras = gather_in_order(graph, _images(model), ridges=(0.1,))
    received = by_keras.run_by(_runner(graph)).fit_sparse(sparse, masks)
    _same(received, by_keras.fit_sparse(sparse, masks))
    assert all(not received[name][~mask].any() for name, mask in masks.items())


def test_what_nothing_reads_any_more_is_freed():
    model = _built("residual")
    graph = amc_tf.analyze(model)
    refit = gather_in_order(graph, _images(model)).run_by(_runner(graph))
    calls = graph.network.calls
    stops = sorted((c.stop for c in refit.consumers.values()), key=lambda s: calls.index(s.call))
    with ThreadPoolExecutor(1) as pool:
        run = refit.runner.start(random_plan(graph, 0), refit.images, pool)
        live = []
        for stop in stops:
            run.advance(stop, {})
            assert all(refit.runner.tensor_of[n] in run._live for n in stop.values)
            live.append(len(run._live))
    # First the images for the stem. In each block, the stream in front of the first convolution,
    # then the branch too; in the end, what the head reads.
    assert live == [1, 1, 2, 1, 2, 1]


def test_what_litert_cannot_run_is_run_by_keras_and_told(caplog):
    model = zoo.build("shared_layers")
    graph, x = amc_tf.analyze(model), _images(model, 60)
    model.compile("sgd", "mse")
    data = {t.name: a for t, a in zip(model.inputs, x, strict=True)}, np.zeros((60, 5))
    task = amc_tf.Task(data, data, metric="loss")
    refit = gather_in_order(graph, x)
    with caplog.at_level(logging.INFO, logger="amc_tf.scoring.tflite_scorer"):
        score = LiteScorer(graph, task, refit)
    assert "the refit runs pruned networks by Keras: layer" in caplog.text
    assert "is called several times" in caplog.text
    plan = random_plan(graph, 0)
    (received,) = score.outputs(plan)
    (expected,) = zoo.outputs(amc_tf.rebuild(model, graph, plan, refit.refit(plan)), x)
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)


def test_the_scorer_runs_its_refits():
    model = blobs.trained(epochs=1)
    graph, task = amc_tf.analyze(model), blobs.task()
    images = task.calibration_inputs(model)
    refit = gather_in_order(graph, images)
    score = fastest_scorer(graph, task, refit)
    assert isinstance(score._refit.runner, LiteRunner)
    sparse = score.refitted_by(SparseReconstruction(graph, images))
    assert isinstance(sparse._refit._dense.runner, LiteRunner)


def test_a_value_without_a_tensor_is_refused():
    """Tensors must agree in every run: the first alone does not tell them apart."""
    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    assert matched([{7: a}, {7: b}], [{1: a, 2: a}, {1: a, 2: b}]) == {7: 2}
    assert matched([{7: a}], [{1: a + 1, 2: a.reshape(2, 1, 3)}]) == {7: 2}
    with pytest.raises(NotCarriedError, match="value 7 of the network"):
        matched([{7: a}, {7: b}], [{1: a}, {1: a}])
    with pytest.raises(NotCarriedError):
        matched([{7: a}], [{1: np.full((2, 3), np.nan)}])
