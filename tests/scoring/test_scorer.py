"""Scores of plans against Keras' own evaluation of the rebuilt model."""

import dataclasses

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from plans import random_plan

import amc_tf
from amc_tf.pruning.refit.dense import gather
from amc_tf.scoring import resampling, tflite_engine, tflite_scorer
from amc_tf.scoring.early_stopping import hopeless
from amc_tf.scoring.masked_scorer import MaskedScorer
from amc_tf.scoring.scorer import fastest_scorer
from amc_tf.scoring.tflite_scorer import LiteScorer


@pytest.fixture(scope="module")
def trained():
    model = blobs.trained(epochs=2)
    return model, amc_tf.analyze(model)


def _keras_score(model, graph, task, plan, refit=None):
    weights = {} if refit is None else refit.refit(plan)
    small = task.compiled(amc_tf.rebuild(model, graph, plan, weights), model)
    return task.score(small, task.validation)


def test_a_score_is_that_of_the_refitted_rebuilt_model(trained):
    model, graph = trained
    task = blobs.task()
    refit = gather(graph, task.calibration_inputs(model))
    score = fastest_scorer(graph, task, refit)
    assert isinstance(score, LiteScorer)
    assert score(None) == pytest.approx(model.evaluate(*task.validation, verbose=0)[1])
    masked = MaskedScorer(graph, task, refit)
    for seed in range(3):
        plan = random_plan(graph, seed)
        expected = _keras_score(model, graph, task, plan, refit)
        assert score(plan) == pytest.approx(expected, abs=1 / 200)
        assert masked(plan) == pytest.approx(expected, abs=1 / 200)
        (a,), (b,) = score.outputs(plan), masked.outputs(plan)
        assert a.shape == (200, 4)
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_run_gives_the_outputs_a_batch_at_a_time(trained):
    _, graph = trained
    score = LiteScorer(graph, blobs.task(batch_size=64), None)
    assert [len(batch[0]) for batch in score.run(None)] == [64, 64, 64, 8]


@pytest.mark.parametrize("kept", [True, False])
def test_a_dataset_gives_the_same_score_and_is_read_once_if_it_fits(trained, kept):
    model, graph = trained
    arrays = blobs.task()
    reads = []

    def examples():
        reads.append(None)
        yield from zip(*arrays.validation, strict=True)

    signature = (tf.TensorSpec((8, 8, 1)), tf.TensorSpec((), tf.int32))
    data = tf.data.Dataset.from_generator(examples, output_signature=signature).batch(50)
    most = 2**20 if kept else 1000
    score = LiteScorer(graph, blobs.task(validation=data, keep_bytes=most), None)
    before = len(reads)
    plan = random_plan(graph, 1)
    expected = _keras_score(model, graph, arrays, plan)
    assert [score(plan) for _ in range(3)] == pytest.approx([expected] * 3)
    assert len(reads) - before == (1 if kept else 3)


def test_weights_of_the_samples_count(trained):
    _, graph = trained
    x, y = blobs.data(200, 1)
    weight = np.arange(200, dtype="float32")

    def compile_model(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metric = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        model.compile("sgd", loss, weighted_metrics=[metric])

    score = LiteScorer(graph, blobs.task(validation=(x, y, weight), compile=compile_model), None)
    right = score.outputs(None)[0].argmax(axis=1) == y
    assert score(None) == pytest.approx(np.average(right, weights=weight), rel=1e-5)


def test_metrics_of_the_owner_are_used(trained):
    _, graph = trained

    def second_place(y, predicted):
        ranks = keras.ops.argsort(predicted, axis=-1)[:, -2]
        return keras.ops.cast(
            ranks == keras.ops.cast(keras.ops.reshape(y, (-1,)), "int32"), "float32"
        )

    def compile_model(model):
        model.compile("sgd", "mse", metrics=[second_place])

    score = fastest_scorer(graph, blobs.task(compile=compile_model, metric="second_place"), None)
    assert isinstance(score, LiteScorer)
    expected = np.argsort(score.outputs(None)[0])[:, -2] == blobs.data(200, 1)[1]
    assert score(None) == pytest.approx(expected.mean())


def test_named_outputs_reach_their_metrics():
    model = zoo.build("two_outputs")
    x = zoo.sample(model, batch=20)
    y = {"map": np.zeros((20, *model.outputs[1].shape[1:])), "label": np.arange(20) % 5}
    shapes = {k: v.shape for k, v in model.output.items()}
    y["map"] = np.zeros((20, *shapes["map"][1:]), "float32")

    def compile_model(model):
        losses = {"map": "mse", "label": "sparse_categorical_crossentropy"}
        model.compile("sgd", losses, metrics={"label": ["accuracy"]})

    task = amc_tf.Task((x, y), (x, y), compile=compile_model, metric="label_accuracy")
    graph = amc_tf.analyze(model)
    score = fastest_scorer(graph, task, None)
    assert isinstance(score, LiteScorer)
    labels = model(x)["label"].numpy().argmax(axis=1)
    assert score(None) == pytest.approx((labels == y["label"]).mean())


def test_what_needs_a_keras_model_gets_one(trained, caplog):
    _, graph = trained
    caplog.set_level("INFO", logger="amc_tf.scoring.scorer")
    task = blobs.task(evaluate=lambda model, data: 0.5)
    assert isinstance(fastest_scorer(graph, task, None), MaskedScorer)
    assert "masked model" in caplog.text


def test_the_loss_is_that_of_keras(trained):
    """With sample weights, and a last batch that is smaller than the others."""
    model, graph = trained
    x, y = blobs.data(150, 1)
    weights = np.linspace(0.5, 2, 150).astype("float32")
    task = blobs.task(validation=(x, y, weights), metric="loss", batch_size=64)
    score, masked = fastest_scorer(graph, task, None), MaskedScorer(graph, task, None)
    assert isinstance(score, LiteScorer)
    for plan in (None, random_plan(graph, 0)):
        expected = _keras_score(model, graph, task, plan)
        assert score(plan) == pytest.approx(expected, rel=1e-5)
        assert masked(plan) == pytest.approx(expected, rel=1e-5)


def test_a_loss_with_penalties_of_weights_needs_the_pruned_weights():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3, kernel_regularizer=keras.regularizers.L2(0.1))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
    graph, task = amc_tf.analyze(model), blobs.task(metric="loss")
    score, plan = fastest_scorer(graph, task, None), random_plan(graph, 0)
    assert isinstance(score, MaskedScorer)
    assert score(plan) == pytest.approx(_keras_score(model, graph, task, plan), rel=1e-5)


@pytest.mark.parametrize("kind", [LiteScorer, MaskedScorer])
@pytest.mark.parametrize("most", [2**25, 6000])
def test_the_standard_error_is_that_of_the_mean(trained, kind, most, monkeypatch):
    """Of a metric that is a mean, the standard error is known: s / sqrt(n)."""
    monkeypatch.setattr(resampling, "_MOST_BYTES", most)  # 6000: every second sample is resampled

    def compile_model(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)

    model, graph = trained
    x, y = blobs.data(400, 1)
    task = blobs.task(
        validation=(x, y), compile=compile_model, metric="loss", test=blobs.data(90, 2)
    )
    if kind is MaskedScorer:  # in batches, of which the last is smaller
        whole = tf.data.Dataset.from_tensor_slices(task.test)
        task = dataclasses.replace(task, test=whole.batch(64))
    found = resampling.uncertainty(kind(graph, task, None), task, model)
    logits = model.predict(x, verbose=0).astype(float)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(400), y]
    assert found.samples == {"validation": 400, "test": 90}
    # 30 draws tell a standard deviation to about an eighth.
    assert found.deviation == pytest.approx(losses.std(), rel=0.35)


@pytest.mark.parametrize("most", [2**25, 6000])
def test_the_standard_error_of_a_difference_is_that_of_the_paired_answers(
    trained, most, monkeypatch
):
    """Of n answers, b right by one network alone and c by the other: known since McNemar."""
    monkeypatch.setattr(resampling, "_MOST_BYTES", most)  # 6000: every second sample is resampled
    model, graph = trained
    x, y = blobs.data(400, 1)
    task = blobs.task(validation=(x, y))
    score = fastest_scorer(graph, task, None)
    plans = [random_plan(graph, seed) for seed in (0, 1)]
    first, second = (resampling.sampled(score, plan) for plan in plans)
    right = [(score.outputs(plan)[0].argmax(-1) == y).astype(int) for plan in plans]
    b, c = (int((d == 1).sum()) for d in (right[0] - right[1], right[1] - right[0]))
    assert b and c and first.order == second.order and first.seen == 400
    expected = np.sqrt((b + c) / 400 - ((b - c) / 400) ** 2)
    found = resampling.Bootstrap(task, model).deviation(first, second)
    assert found == pytest.approx(expected, rel=0.35)  # of 30 draws
    assert resampling.Bootstrap(task, model).deviation(first, first) == 0
    other = blobs.task(validation=(x[::-1].copy(), y[::-1].copy()))
    assert resampling.sampled(fastest_scorer(graph, other, None), None).order != first.order


def test_the_standard_error_of_what_hides_its_samples_is_unknown(trained):
    model, graph = trained
    task = blobs.task(evaluate=lambda model, data: 0.5, test=None)
    found = resampling.uncertainty(fastest_scorer(graph, task, None), task, model)
    assert (found.samples, found.deviation) == ({"validation": 200}, None)


def test_a_network_that_is_not_carried_is_scored_masked():
    model = zoo.build("recurrent")
    x, y = zoo.sample(model, batch=8), np.arange(8) % 3
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert isinstance(
        fastest_scorer(amc_tf.analyze(model), amc_tf.Task((x, y), (x, y)), None), MaskedScorer
    )


@pytest.mark.parametrize(
    "count, expected", [(128, 4), (100, 4), (50, 5), (10, 5), (7, 7), (1, 1), (9, 3), (97, 2)]
)
def test_the_engines_batch_divides_the_owners_nearly(count, expected):
    assert tflite_scorer._divisor(count) == expected


def test_hopeless_tells_by_the_standard_error_of_the_batches():
    scores, sizes = [0.5, 0.6, 0.5, 0.6], [10] * 4
    # Mean 0.55; the batches' variance is 0.0025, that of their mean a third of it (n - 1); of 400
    # images nine tenths are to come: a standard error of sqrt(0.0025 / 3 * 0.9) = 0.0274.
    assert hopeless(scores, sizes, 400, beat=0.55 + 2 * 0.0275, z=2)
    assert not hopeless(scores, sizes, 400, beat=0.55 + 2 * 0.0273, z=2)
    assert hopeless(scores, sizes, 40, beat=0.5501, z=2)  # nothing is to come
    assert not hopeless(scores[:3], sizes[:3], 400, beat=1.0, z=2)
    # Batches weigh as many images as they hold: (30 * 0.8 + 10 * 0.4) / 40 = 0.7.
    assert not hopeless([0.8] * 3 + [0.4], [10] * 4, 40, beat=0.7, z=1)
    assert hopeless([0.8] * 3 + [0.4], [10] * 4, 40, beat=0.7001, z=1)


def test_a_hopeless_plan_is_not_run_to_the_end(trained, monkeypatch):
    _, graph = trained
    task = blobs.task(batch_size=10)
    plan, bad = random_plan(graph, 0), random_plan(graph, 1)
    full = fastest_scorer(graph, task, None)
    score = fastest_scorer(graph, task, None, stop_at=3.0)
    runs = []
    original = tflite_engine.LiteNetwork.__call__

    def counted(self, inputs):
        runs.append(len(inputs[0]))
        return original(self, inputs)

    monkeypatch.setattr(tflite_engine.LiteNetwork, "__call__", counted)
    assert score(None, beat=2.0) == full(None)  # the number of images is not known before
    good, poor = full(plan), full(bad)
    runs.clear()
    assert score(plan, beat=good) == pytest.approx(good)
    assert sum(runs) == 200
    runs.clear()
    estimate = score(bad, beat=2.0)
    assert sum(runs) == 40 and abs(estimate - poor) < 0.5
    assert MaskedScorer(graph, task, None)(bad, beat=2.0) == pytest.approx(full(bad), abs=1 / 200)


def test_another_refit_leaves_the_first_scorer_as_it_is(trained):
    model, graph = trained
    task = blobs.task()
    refit = gather(graph, task.calibration_inputs(model))
    plan = random_plan(graph, 0)
    for make in (LiteScorer, MaskedScorer):
        plain = make(graph, task, None)
        refitted = plain.refitted_by(refit)
        first, second = plain.outputs(plan)[0], refitted.outputs(plan)[0]
        np.testing.assert_allclose(plain.outputs(plan)[0], first)
        np.testing.assert_allclose(
            second, make(graph, task, refit).outputs(plan)[0], rtol=1e-4, atol=1e-5
        )
        assert np.abs(first - second).max() > 1e-3
