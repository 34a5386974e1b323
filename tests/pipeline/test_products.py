"""What a finished run returns is whole and its own, whatever happened to its files or its call."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf

import amc_tf
from amc_tf.pipeline import compression
from amc_tf.runs.result import RunResult
from amc_tf.runs.workdir import Workdir

BUDGET = amc_tf.Budget(macs=0.5)
FAST = amc_tf.ExportSettings(latency_rounds=1, latency_runs=2, latency_min_secs=0.01)
SETTINGS = amc_tf.Settings(
    rehearse=False,
    search=blobs.search_settings(episodes=2, policies=("amc",)),
    finetune=amc_tf.FineTuneSettings(compare=("uniform",)),
    export=dataclasses.replace(FAST, formats=("float32", "int8")),
)
X, Y = blobs.data(200, 1)


def _settings(**search):
    return dataclasses.replace(SETTINGS, search=dataclasses.replace(SETTINGS.search, **search))


def _compressor(path, net=None, **kwargs):
    return amc_tf.Compressor(net or _untrained(), BUDGET, path, SETTINGS, **kwargs)


def _untrained(seed=0, rate=5e-3, width=8):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(width, 3, activation="relu", name="stem")(inputs)
    x = keras.layers.Dense(12, activation="relu")(keras.layers.GlobalAveragePooling2D()(x))
    net = keras.Model(inputs, keras.layers.Dense(4)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return net


FIT = {"epochs": 1, "verbose": 0, "validation_data": (X, Y)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run by `fit`, which trains the dense model, too."""
    path = tmp_path_factory.mktemp("finished")
    compressor = _compressor(path)
    compressor.fit(*blobs.data(400, 0), **FIT)
    return path, compressor.result


@pytest.fixture
def copy(finished, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(finished[0], path)
    return path


@pytest.fixture
def stages(monkeypatch, finished):
    """Names of the stages that run; each of them only puts the files of the first run back."""
    ran = []

    def replaced(name, section):
        def stage(run, *_, **__):
            ran.append(name)
            whole = RunResult.read(finished[0])
            for file in whole.products[name]:
                shutil.copyfile(finished[0] / file, run.workdir / file)
            run.workdir.forget("policies", "pruned", "finetuned", "tflite")
            names = ["policies", "pruned", "finetuned", "tflite"]
            for kept in names[: names.index(section) + 1]:
                run.workdir.update_result(**{kept: getattr(whole, kept)})

        return stage

    for name, section in (("search", "pruned"), ("finetune", "finetuned"), ("export", "tflite")):
        monkeypatch.setattr(compression, name, replaced(name, section))
    return ran


def _run(path):
    """The same script again, in a new process so to say."""
    compressor = _compressor(path)
    compressor.fit(*blobs.data(400, 0), **FIT)
    return compressor.result


# The stage that makes a file; those after it follow.
MADE_BY = {
    "plan.json": "search",
    "best_plans.json": "search",
    "search.json": "search",
    "pruned.keras": "search",
    "plans/amc.json": "search",
    "plans/amc.keras": "search",
    "finetuned.keras": "finetune",
    "history.json": "finetune",
    "model_float32.tflite": "export",
    "model_int8.tflite": "export",
    "plans/dense_float32.tflite": "export",
    "report.html": "report",
}
DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


def test_every_product_is_damaged_below(finished):
    products = RunResult.read(finished[0]).products
    assert {file: stage for stage, made in products.items() for file in made} == {
        **MADE_BY,
        "dense.keras": "train_dense",
    }


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", MADE_BY)
def test_damage_is_found(copy, file, damage):
    workdir = Workdir(copy)
    assert not workdir.damaged(MADE_BY[file])
    DAMAGES[damage](copy / file)
    assert workdir.damaged(MADE_BY[file]) == [file]


@pytest.mark.parametrize("file", MADE_BY)
def test_a_damaged_product_is_made_again(copy, stages, file, caplog):
    whole = (copy / file).read_bytes()
    DAMAGES["cut"](copy / file)
    result = _run(copy)
    order = ["search", "finetune", "export"]
    made = MADE_BY[file]
    assert stages == (order[order.index(made) :] if made in order else [])
    if made == "report":  # it holds the time at which it was written
        assert (copy / file).read_bytes().endswith(whole[-20:])
    else:
        assert (copy / file).read_bytes() == whole
        told = f"{made}: missing or damaged in {copy}, so that this stage runs again: {file}"
        assert told in caplog.text
    assert result["finetuned"]["score"] > 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dense_model_is_told(copy, stages, damage):
    DAMAGES[damage](copy / "dense.keras")
    with pytest.raises(amc_tf.AmcError, match="dense.keras, the dense .* missing or damaged; rest"):
        _run(copy)
    assert not stages


def test_a_whole_run_repeats_nothing(copy, stages, finished):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert _run(copy) == finished[1]
    assert not stages
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_the_stages_themselves_make_it_again_and_train_nothing_twice(copy, finished, monkeypatch):
    @functools.wraps(keras.Model.fit)
    def never(*_, **__):
        raise AssertionError("nothing may be trained again")

    monkeypatch.setattr(keras.Model, "fit", never)
    tuned = (copy / "finetuned.keras").read_bytes()
    for file in ("pruned.keras", "model_int8.tflite"):
        DAMAGES["cut"](copy / file)
    result = _run(copy)
    assert (copy / "finetuned.keras").read_bytes() == tuned
    for name in ("policies", "pruned", "dense", "chosen"):
        assert result[name] == finished[1][name]
    keras.models.load_model(copy / "pruned.keras")
    size = (copy / "model_int8.tflite").stat().st_size
    assert size == result["tflite"]["model_int8.tflite"]["bytes"]


def test_a_plan_of_ones_own_is_not_ignored(copy, stages):
    plan = amc_tf.PruningPlan.load(copy / "plan.json")
    amc_tf.PruningPlan({name: kept[:1] for name, kept in plan.keep.items()}).save(
        copy / "plan.json"
    )
    with pytest.raises(amc_tf.AmcError, match=r"for a plan of your own, .*amc_tf\.rebuild"):
        _run(copy)
    assert not stages


# --- another run in the folder -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "train", "fit", "told"),
    [
        ({"width": 6}, {}, {}, "a model of another architecture"),
        ({"seed": 1}, {}, {}, r"other weights before its training \(set a seed .* dense.keras\)"),
        ({"rate": 1e-3}, {}, {}, r"another optimizer \(learning_rate: 0.00499.* there, 0.0010.*\)"),
        ({}, {"seed": 5}, {}, "other training data"),
        ({}, {}, {"validation_data": (X, (Y + 1) % 4)}, r"other validation data \(labels\)"),
        ({}, {}, {"epochs": 2}, "fit.epochs: 1 there, 2 now"),
        ({}, {}, {"class_weight": {0: 1.0, 1: 0.5, 2: 1.0, 3: 1.0}}, "fit.class_weight"),
    ],
)
def test_fit_refuses_what_is_another_run(copy, stages, net, train, fit, told):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    data = blobs.data(400, train.get("seed", 0))
    with pytest.raises(amc_tf.AmcError, match=told):
        _compressor(copy, _untrained(**net)).fit(*data, **{**FIT, **fit})
    assert not stages
    assert {path: path.read_bytes() for path in before if path.name != ".lock"} == {
        path: content for path, content in before.items() if path.name != ".lock"
    }


def test_a_run_without_a_seed_goes_on_with_its_own_dense_model(copy, stages):
    net = keras.models.load_model(copy / "dense.keras")
    net.compile(
        keras.optimizers.Adam(5e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    compressor = _compressor(copy, net, trained=True)
    compressor.fit(*blobs.data(400, 0), **FIT)
    assert compressor.result["finetuned"] and not stages


def test_other_test_data_is_measured_anew(copy, stages):
    compressor = _compressor(copy, test=blobs.data(100, 7))
    compressor.fit(*blobs.data(400, 0), **FIT)
    assert stages == ["search", "finetune", "export"]


def test_stages_take_no_model_that_is_not_of_the_run(copy):
    """It lies there from before what it depends on was changed."""
    dense = keras.models.load_model(copy / "dense.keras")
    path = copy.parent / "other"
    task = blobs.task(epochs=1)
    run = amc_tf.Compression(dense, task, BUDGET, path, SETTINGS)
    shutil.copyfile(copy / "finetuned.keras", path / "finetuned.keras")
    with pytest.raises(amc_tf.AmcError, match="run amc-finetune first"):
        run.export()
    with pytest.raises(amc_tf.AmcError, match="run amc-finetune again, or remove the file"):
        run.sparsify()
    with pytest.raises(amc_tf.AmcError, match="holds no search; run amc-search first"):
        run.finetune()


# --- a search by itself --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bare_search_knows_its_model_its_data_and_its_refit(copy):
    dense = keras.models.load_model(copy / "dense.keras")
    blobs.compile_model(dense)
    task, path = blobs.task(), copy.parent / "bare"
    search = SETTINGS.search
    first = amc_tf.search_plan(dense, task, BUDGET, path, search)
    log = (path / "episodes.jsonl").read_bytes()
    other = keras.models.clone_model(dense)
    blobs.compile_model(other)
    for changed, told in (
        ((other, task, BUDGET, path, search), "a model with other weights"),
        ((dense, blobs.task(validation=(X[:50], Y[:50])), BUDGET, path, search), "validation data"),
        (
            (dense, task, BUDGET, path, _settings(final_refit="in_order").search),
            "search.final_refit: 'dense' there, 'in_order' now",
        ),
    ):
        with pytest.raises(amc_tf.AmcError, match=told):
            amc_tf.search_plan(*changed)
    assert (path / "episodes.jsonl").read_bytes() == log
    assert amc_tf.search_plan(dense, task, BUDGET, path, search).plan == first.plan


@pytest.mark.slow
def test_a_search_on_shuffled_data_goes_on_to_the_plan_of_the_whole(copy):
    """The interrupted one, after six episodes; and an undisturbed one, on the same drawn inputs."""
    dense = keras.models.load_model(copy / "dense.keras")
    blobs.compile_model(dense)
    train = tf.data.Dataset.from_tensor_slices(blobs.data(400, 0)).shuffle(400).batch(50)
    settings = blobs.search_settings(
        episodes=16, policies=("amc",), refit="quick_in_order", final_refit="quick_in_order"
    )
    path, whole, good = copy.parent / "interrupted", copy.parent / "whole", blobs.task()

    def score(model, data):
        return good.score(model, data)

    def interrupted(model, data):
        log = path / "episodes.jsonl"
        if log.exists() and len(log.read_text().splitlines()) >= 6:
            raise RuntimeError("interrupted")
        return score(model, data)

    task = blobs.task(train=train, calibration_size=32, evaluate=score)
    with pytest.raises(amc_tf.AmcError, match="interrupted"):
        broken = dataclasses.replace(task, evaluate=interrupted)
        amc_tf.search_plan(dense, broken, BUDGET, path, settings)
    assert len((path / "episodes.jsonl").read_text().splitlines()) >= 6
    whole.mkdir()
    shutil.copyfile(path / "calibration.npz", whole / "calibration.npz")
    found = [amc_tf.search_plan(dense, task, BUDGET, p, settings).plan for p in (path, whole)]
    assert found[0] == found[1]
    logs = [
        [{**json.loads(line), "seconds": 0} for line in (p / "episodes.jsonl").open()]
        for p in (path, whole)
    ]
    assert logs[0] == logs[1]
    drawn = [np.load(p / "calibration.npz")["arr_0"] for p in (path, whole)]
    np.testing.assert_array_equal(*drawn)
