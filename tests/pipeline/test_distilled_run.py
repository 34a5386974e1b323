"""Fine-tuning that follows the dense network, or goes in steps, in whole runs."""

import collections
import dataclasses
import shutil

import blobs
import keras
import pytest
import tensorflow as tf

import amc_tf
from amc_tf.pipeline.compression import Compression

BUDGET = amc_tf.Budget(macs=0.5)
SETTINGS = amc_tf.Settings(
    rehearse=False,
    search=blobs.search_settings(episodes=3, policies=("amc",)),
    export=amc_tf.ExportSettings(formats=(), latency_rounds=0),
)
REHEARSED = dataclasses.replace(SETTINGS, rehearse=True)


def fine_tuned_by(**settings):
    return dataclasses.replace(SETTINGS, finetune=amc_tf.FineTuneSettings(**settings))


@pytest.fixture(scope="module")
def net():
    return blobs.trained()


@pytest.fixture(scope="module")
def searched_once(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    Compression(net, blobs.task(), BUDGET, folder, SETTINGS).search()
    return folder


@pytest.fixture
def searched(searched_once, tmp_path):
    """A work directory in which a search has ended."""
    return shutil.copytree(searched_once, tmp_path / "run")


def test_training_code_that_cannot_follow_is_refused_before_the_search(net, tmp_path):
    def loop(model):
        x, y = blobs.data(8, 0)
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(model.loss(y, model(x, training=True)))
        weights = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, weights), weights)

    settings = dataclasses.replace(REHEARSED, finetune=amc_tf.FineTuneSettings(distill=0.5))
    with pytest.raises(amc_tf.AmcError, match="'one step of training'.*took no step by Model.fit"):
        Compression(net, blobs.task(fine_tune=loop), BUDGET, tmp_path, settings)
    assert not (tmp_path / "episodes.jsonl").exists()


def test_a_recipe_is_rehearsed(net, tmp_path):
    recipe = amc_tf.distill(blobs.data(400, 0), epochs=2, features=1.0)
    Compression(net, blobs.task(fine_tune=recipe), BUDGET, tmp_path, REHEARSED)


def test_a_run_follows_and_knows_how_it_did(net, searched, monkeypatch):
    steps = collections.deque()
    train_by = amc_tf.Recipe.__call__

    def counted(recipe, model):
        steps.append("compute_loss" in vars(model))
        return train_by(recipe, model)

    monkeypatch.setattr(amc_tf.Recipe, "__call__", counted)
    train = blobs.data(400, 0)

    def run(**settings):
        steps.clear()
        task = blobs.task(fine_tune=amc_tf.distill(train, epochs=2, **settings))
        return Compression(net, task, BUDGET, searched, SETTINGS).run()

    first = run(features=1.0)
    assert [*steps] == [True] and first["finetuned"]["score"] > 0.5
    assert run(features=1.0) == first and not steps
    run(share=0.9)
    assert [*steps] == [True]


def test_a_setting_follows_in_code_that_knows_nothing_of_it(net, searched):
    shared = collections.deque()

    def fit(model):
        shared.append("compute_loss" in vars(model))
        model.fit(*blobs.data(400, 0), epochs=1, verbose=0)

    task = blobs.task(fine_tune=fit)
    for distill in (0.0, 0.5):
        Compression(net, task, BUDGET, searched, fine_tuned_by(distill=distill)).finetune()
    assert [*shared] == [False, True]


class Scaled(keras.Model):
    """A class of a user's, with a loss of its own."""

    def compute_loss(self, *args, **kwargs):
        return 2.0 * super().compute_loss(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
def test_a_fit_is_distilled(tmp_path, own):
    shared = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            shared.append("compute_loss" in vars(self.model))

    plain = blobs.trained(1)
    model = Scaled(plain.inputs, plain.outputs) if own else plain
    blobs.compile_model(model)
    settings = fine_tuned_by(distill=0.5)
    small = amc_tf.Compressor(model, BUDGET, tmp_path, settings, trained=True)
    x, y = blobs.data(400, 0)
    small.fit(x, y, epochs=1, validation_split=0.2, verbose=0, callbacks=[Watch()])
    assert shared[-1] and isinstance(small.model, type(model))
    assert "compute_loss" not in vars(small.model)


@pytest.mark.slow
def test_the_history_is_that_of_the_network_that_is_kept(tmp_path):
    model = blobs.trained(1)
    settings = fine_tuned_by(steps=2, keep="last", compare=("uniform",))
    search = blobs.search_settings(episodes=3, policies=("amc", "uniform"))
    settings = dataclasses.replace(settings, search=search)
    trained = []  # (loss, parameters) of each training; networks on the way may be the same

    class Watch(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            trained.append((logs["loss"], self.model.count_params()))

    small = amc_tf.Compressor(model, BUDGET, tmp_path, settings, trained=True)
    x, y = blobs.data(400, 0)
    history = small.fit(x, y, epochs=1, validation_split=0.2, verbose=0, callbacks=[Watch()])
    assert len(trained) == 4
    assert trained[1] == (history.history["loss"][0], small.model.count_params())


def test_a_network_is_pruned_in_steps_and_trained_after_each(net, searched):
    widths, stops = collections.deque(), set()  # no settings, so no part of the code

    def fit(model):
        if model.count_params() in stops:
            raise KeyboardInterrupt
        widths.append(model.count_params())
        model.fit(*blobs.data(400, 0), epochs=1, verbose=0)

    def run():
        task, settings = blobs.task(fine_tune=fit), fine_tuned_by(steps=3, distill=0.5)
        return Compression(net, task, BUDGET, searched, settings).run()

    whole = run()
    assert len(widths) == 3 and net.count_params() > widths[0] > widths[1] > widths[2]
    small = keras.models.load_model(searched / "finetuned.keras")
    assert small.count_params() == widths[2] == whole["finetuned"]["params"]
    trained, before = [*widths], [w.numpy() for w in small.weights]
    assert run() == whole and [*widths] == trained

    # What was done before an interruption is not done again.
    for name in ("amc_step2.keras", "amc_step3.keras"):
        (searched / "plans" / name).unlink()
    (searched / "finetuned.keras").unlink()
    stops.add(trained[2])
    with pytest.raises(KeyboardInterrupt):
        run()
    assert [*widths][3:] == trained[1:2]
    stops.clear()
    run()
    assert [*widths][4:] == trained[2:]
    after = keras.models.load_model(searched / "finetuned.keras").weights
    for a, b in zip(before, after, strict=True):
        assert keras.ops.all(keras.ops.isclose(a, b, atol=1e-5))
