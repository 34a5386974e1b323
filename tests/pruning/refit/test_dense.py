"""Least-squares refit against numpy's own solver and against hand-made cases."""

from concurrent import futures

import keras
import marks
import numpy as np
import pytest
import zoo
from keras import layers as kl

import amc_tf
from amc_tf.pruning.importance.criteria import consumer_magnitude, strongest
from amc_tf.pruning.refit import dense, refittable, statistics
from amc_tf.pruning.refit.sampling import linear_inputs

_RNG = np.random.default_rng(0)


def _images(model, count=64):
    arrays = zoo.sample(model, batch=count, seed=3)
    return arrays if isinstance(arrays, list) else [arrays]


def _consumer_inputs(kind):
    """A two-layer model whose second layer is a consumer with correlated inputs."""
    x = inputs = keras.Input((6, 6, 3))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="producer")(x)
    if kind == "dense":
        x = kl.Dense(4, name="consumer")(kl.Flatten()(x))
    elif kind == "1x1":
        x = kl.Conv2D(4, 1, name="consumer")(x)
    else:
        x = kl.Conv2D(4, 3, strides=2, padding="same", name="consumer")(x)
    model = keras.Model(inputs, x)
    for weight in model.weights:
        weight.assign(_RNG.normal(size=weight.shape) * 0.3)
    return model


@pytest.mark.parametrize("kind", ["dense", "1x1", "kxk"])
@pytest.mark.parametrize("max_features", [6144, 0], ids=["primal", "dual"])
def test_refit_equals_lstsq_on_the_same_samples(kind, max_features):
    model = _consumer_inputs(kind)
    graph = amc_tf.analyze(model)
    (group,) = graph.groups
    kept = [0, 2, 5]
    plan = amc_tf.PruningPlan({group: kept})
    images = _RNG.normal(size=(600, 6, 6, 3)).astype("float32")
    options = {"rows": 10**6, "ridge": 1e-9} if max_features else {"rows": 1200, "ridge": 1e-6}
    gathered = dense.gather(graph, [images], max_features=max_features, **options)
    weights = gathered.refit(plan)

    hidden = keras.Model(model.input, model.get_layer("producer").output)(images)
    consumer = model.get_layer("consumer")
    if kind == "dense":
        rows = np.asarray(hidden).reshape(len(images), -1)
    else:
        everywhere = np.tile(np.arange(consumer.output.shape[1] ** 2), (len(images), 1))
        rows = linear_inputs(consumer, hidden, everywhere)
    kernel = np.asarray(consumer.kernel)
    flat = kernel.reshape(-1, 4)
    target = rows @ flat + np.asarray(consumer.bias)
    columns = np.tile(np.isin(np.arange(8), kept), rows.shape[1] // 8)
    design = np.column_stack([rows[:, columns], np.ones(len(rows))]).astype(np.float64)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    refitted = weights["consumer/kernel"].reshape(-1, 4)
    assert not refitted[~columns].any()
    if max_features:
        np.testing.assert_allclose(refitted[columns], solution[:-1], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(weights["consumer/bias"], solution[-1], rtol=1e-3, atol=1e-3)
    # On either path no weights do better on these samples (the dual saw fewer of them).
    best = np.square(design @ solution - target).mean()
    ours = rows @ refitted + weights["consumer/bias"]
    assert np.square(ours - target).mean() <= best * (1.001 if max_features else 1.5)


def test_primal_and_dual_agree():
    rows = _RNG.normal(size=(300, 20)) @ _RNG.normal(size=(20, 20))
    rows = (rows + 3).astype("float32")
    kept = np.arange(20) % 3 > 0
    pruned = _RNG.normal(size=(np.count_nonzero(~kept), 6))
    primal, dual = statistics.Moments(20), statistics.Samples()
    with futures.ThreadPoolExecutor(2) as pool:
        for part in np.split(rows, 3):
            primal.add(part, pool)
            dual.add(part, pool)
    np.testing.assert_allclose(primal.mean, rows.mean(axis=0, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(dual.mean, primal.mean, rtol=1e-5)
    a = primal.correction(kept, pruned, 1e-2, centred=True)
    b = dual.correction(kept, pruned, 1e-2, centred=True)
    np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)


def test_keeping_everything_changes_nothing():
    model = zoo.build("residual")
    graph = amc_tf.analyze(model)
    gathered = dense.gather(graph, _images(model))
    assert gathered.refit(amc_tf.PruningPlan({})) == {}


@pytest.mark.parametrize("name", marks.slow_but(sorted(zoo.ZOO), marks.VARIED))
def test_refit_serves_rebuild_and_mask_alike(name):
    model = zoo.build(name)
    graph = amc_tf.analyze(model)
    images = _images(model, 256)
    counts = {n: max(1, g.channels - 1) for n, g in graph.groups.items()}
    plan = strongest(consumer_magnitude(graph), counts)
    weights = dense.gather(graph, images).refit(plan)
    given = images if len(images) > 1 else images[0]
    fitted = zoo.outputs(amc_tf.rebuild(model, graph, plan, weights), given)
    masked = zoo.outputs(amc_tf.mask(model, graph, plan, weights), given)
    for a, b in zip(fitted, masked, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(a).max())
    assert all(np.isfinite(a).all() for a in fitted)
    read = {consumer for group in graph.groups.values() for consumer in group.consumers}
    assert weights.keys() >= {
        f"{site.name}/{kernel.name}"
        for site, kernel in refittable.refittable(graph)
        if site.name in read
    }


def test_refit_recovers_a_redundant_channel_exactly():
    """Two equal channels: without one of them the other can do both's work."""
    x = inputs = keras.Input((5,))
    x = kl.Dense(4, activation="relu", name="twins")(x)
    model = keras.Model(inputs, kl.Dense(3, name="reader")(x))
    kernel = _RNG.normal(size=(5, 4)).astype("float32")
    kernel[:, 3] = kernel[:, 0]
    model.get_layer("twins").kernel.assign(kernel)
    graph = amc_tf.analyze(model)
    plan = amc_tf.PruningPlan({"twins": [0, 1, 2]})
    images = _RNG.normal(size=(512, 5)).astype("float32")
    weights = dense.gather(graph, [images], ridge=1e-6).refit(plan)
    held_out = _RNG.normal(size=(64, 5)).astype("float32")
    rebuilt = amc_tf.rebuild(model, graph, plan, weights)
    np.testing.assert_allclose(rebuilt(held_out), model(held_out), atol=1e-3)
    assert not np.allclose(amc_tf.rebuild(model, graph, plan)(held_out), model(held_out), atol=1e-2)


def test_mean_shift_goes_into_the_batch_norm_where_there_is_no_bias():
    """A constant channel is nothing but a bias: pruning it must leave the outputs as they were."""
    x = inputs = keras.Input((8, 8, 2))
    x = kl.Conv2D(3, 1, activation="relu", name="producer")(x)
    x = kl.BatchNormalization(name="norm")(kl.Conv2D(4, 3, use_bias=False, name="reader")(x))
    model = keras.Model(inputs, kl.Dense(2)(kl.GlobalAveragePooling2D()(kl.ReLU()(x))))
    kernel = _RNG.normal(size=(1, 1, 2, 3)).astype("float32")
    kernel[..., 2] = 0
    model.get_layer("producer").kernel.assign(kernel)
    model.get_layer("producer").bias.assign([0.1, 0.1, 2.0])
    graph = amc_tf.analyze(model)
    plan = amc_tf.PruningPlan({"producer": [0, 1]})
    images = _RNG.normal(size=(128, 8, 8, 2)).astype("float32")
    weights = dense.gather(graph, [images]).refit(plan)
    assert "norm/moving_mean" in weights
    rebuilt = amc_tf.rebuild(model, graph, plan, weights)
    np.testing.assert_allclose(rebuilt(images), model(images), atol=1e-3)


@pytest.mark.parametrize("name", ["residual", "shared_layers"])
def test_statistics_are_the_same_where_the_network_cannot_be_traced(name, monkeypatch):
    model = zoo.build(name)
    graph, images = amc_tf.analyze(model), _images(model, count=21)
    at_once = dense.gather_parts(graph, images, 2, batch_bytes=2**14)
    monkeypatch.setattr(dense, "traced", lambda network, run: run)
    by_calls = dense.gather_parts(graph, images, 2, batch_bytes=2**14)
    for a, b in zip(at_once, by_calls, strict=True):
        assert a.powers == pytest.approx(b.powers, rel=1e-4)
        for ours, theirs in zip(a.consumers, b.consumers, strict=True):
            ours, theirs = ours.statistics, theirs.statistics
            np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                ours.covariance(True), theirs.covariance(True), rtol=1e-3, atol=1e-4
            )
