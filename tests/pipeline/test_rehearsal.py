"""The rehearsal: what would fail at the end of the way is told at its beginning."""

import re

import blobs
import keras
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.pipeline.compression import Compression
from amc_tf.runs.result import RunResult

BUDGET = amc_tf.Budget(macs=0.5)
SETTINGS = amc_tf.Settings(
    search=blobs.search_settings(episodes=3, policies=("amc",)),
    export=amc_tf.ExportSettings(
        formats=("float32", "int8"), latency_rounds=1, latency_runs=2, latency_min_secs=0.01
    ),
)


@pytest.fixture(scope="module")
def net():
    return blobs.trained(1)


def test_every_step_is_told_with_its_seconds_and_done_once(net, tmp_path, capfd):
    epochs = []

    def fit(model):
        epochs.append(model.count_params())
        model.fit(*blobs.data(400, 0), epochs=2, verbose=0)

    before = [w.numpy().copy() for w in net.weights]
    Compression(net, blobs.task(fit=fit), BUDGET, tmp_path, SETTINGS)
    told = RunResult.read(tmp_path).rehearsal
    assert list(told) == [
        "rebuild a plan",
        "save and load it",
        "score it",
        "one step of training",
        "convert to float32",
        "check the float32 file",
        "convert to int8",
        "check the int8 file",
        "write the report",
    ]
    assert all(seconds >= 0 for seconds in told.values())
    lines = capfd.readouterr().out
    for name in told:
        assert re.search(rf"^  {name}: [0-9.]+ s$", lines, re.MULTILINE)
    assert epochs[0] < net.count_params()  # a smaller network, not the user's own
    for a, w in zip(before, net.weights, strict=True):
        assert (a == w.numpy()).all()
    assert not (tmp_path / "rehearsal").exists()

    Compression(net, blobs.task(fit=fit), BUDGET, tmp_path, SETTINGS)
    assert len(epochs) == 1 and "rehearsal:" not in capfd.readouterr().out


def test_an_optimizer_made_once_is_left_to_the_fine_tuning(net, tmp_path):
    optimizer = keras.optimizers.Adam(1e-2)

    def compile(model):
        model.compile(
            optimizer, keras.losses.SparseCategoricalCrossentropy(True), metrics=["accuracy"]
        )

    export = amc_tf.ExportSettings(formats=("float32",))
    settings = amc_tf.Settings(search=SETTINGS.search, export=export)
    Compression(net, blobs.task(compile=compile), BUDGET, tmp_path / "fine", settings)
    assert not optimizer.built
    # Two trainings that share it would fail, but only at the second.
    settings = amc_tf.Settings(train_dense=True, search=SETTINGS.search, export=export)
    with pytest.raises(amc_tf.AmcError, match="'one step of training'.*optimizer"):
        Compression(net, blobs.task(compile=compile), BUDGET, tmp_path / "both", settings)


def test_an_evaluate_that_needs_all_data_gets_it(net, tmp_path):
    def evaluate(model, data):
        x, y = data
        if len(y) < 300:
            raise ValueError("the metric is not defined on so few")
        return float((model.predict(x, verbose=0).argmax(1) == y).mean())

    settings = amc_tf.Settings(
        search=SETTINGS.search, export=amc_tf.ExportSettings(formats=("float32",))
    )
    held_out = {"validation": blobs.data(300, 1), "test": blobs.data(300, 2)}
    task = blobs.task(evaluate=evaluate, batch_size=8, **held_out)
    Compression(net, task, BUDGET, tmp_path, settings)
    assert RunResult.read(tmp_path).rehearsal


def test_training_code_that_fails_is_told_before_the_search(net, tmp_path):
    def fit(model):
        model.fit(*blobs.data(400, 0), epoch=2)  # a misspelt argument

    with pytest.raises(
        amc_tf.AmcError, match="rehearsal.*'one step of training'.*epoch.*nothing is lost"
    ):
        Compression(net, blobs.task(fit=fit), BUDGET, tmp_path, SETTINGS)
    assert not (tmp_path / "episodes.jsonl").exists() and not (tmp_path / "rehearsal").exists()


def test_an_evaluate_that_cannot_take_a_file_is_told_before_the_search(net, tmp_path):
    def evaluate(model, data):
        return float(model.get_layer("stem").kernel.shape[-1] > 0)

    with pytest.raises(amc_tf.AmcError, match="'check the float32 file'.*stem"):
        Compression(net, blobs.task(evaluate=evaluate), BUDGET, tmp_path, SETTINGS)


def test_an_operator_that_litert_cannot_run_is_told_with_its_layer(tmp_path):
    x = inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    x = kl.Resizing(16, 16, interpolation="bicubic", name="enlarged")(x)
    x = kl.Conv2D(8, 3, activation="relu")(x)
    net = keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))
    with pytest.raises(amc_tf.AmcError, match="'convert to (float32|int8)'.*enlarged"):
        Compression(net, blobs.task(), BUDGET, tmp_path, SETTINGS)


def test_it_can_be_left_out(net, tmp_path):
    settings = amc_tf.Settings(rehearse=False, search=SETTINGS.search, export=SETTINGS.export)
    Compression(net, blobs.task(), BUDGET, tmp_path, settings)
    assert RunResult.read(tmp_path).rehearsal == {}


@pytest.mark.parametrize(
    ("epochs", "told"), [(0, True), pytest.param(8, False, marks=pytest.mark.slow)]
)
def test_a_network_that_has_learnt_nothing_is_told(epochs, told, tmp_path, caplog):
    keras.utils.set_random_seed(1)
    net = blobs.model()
    blobs.compile_model(net)
    if epochs:
        net.fit(*blobs.data(400, 0), epochs=epochs, verbose=0)
    settings = amc_tf.Settings(rehearse=False, search=SETTINGS.search)
    Compression(net, blobs.task(), BUDGET, tmp_path, settings).search()
    assert ("same answer to every input" in caplog.text) == told
