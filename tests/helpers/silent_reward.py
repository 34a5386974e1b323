"""Which way is better, in what words, and how certain."""

from __future__ import annotations

import json
import re

import blobs
import keras
import numpy as np
from silent_judge import Bench, expect
from silent_tasks import (
    best_of_log,
    classification,
    compress,
    dense,
    load,
    near,
    numbers,
    read,
    regression,
    search,
    settings,
    trained_regressor,
    value,
)

import amc_tf
from amc_tf.report import tables
from amc_tf.runs.result import RunResult

ALL = ("amc", "random", "uniform", "shallow", "deep")


def _mae_of_plan(bench: Bench, model: keras.Model, found: amc_tf.SearchResult) -> float:
    small = amc_tf.rebuild(model, found.graph, found.plan, found.refitted(found.plan))
    x, y = numbers(100, 1)
    return float(np.mean(np.abs(small.predict(x, verbose=0) - y)))


def mae(bench: Bench) -> None:
    model = trained_regressor(["mae"])
    found = search(bench, model, regression(metric="mae"), policies=ALL)
    best_of_log(bench, found, min)
    chosen = found.best[found.chosen]
    expect(near(_mae_of_plan(bench, model, found), chosen.score), "the MAE is not Keras' own")


def loss(bench: Bench) -> None:
    model = trained_regressor(["mae"])
    best_of_log(bench, search(bench, model, regression(metric="loss"), policies=ALL), min)


def mae_object(bench: Bench) -> None:
    model = trained_regressor([keras.metrics.MeanAbsoluteError(name="error_of_mine")])
    task = regression(metric="error_of_mine")
    best_of_log(bench, search(bench, model, task, policies=ALL), min)


def large_mae(bench: Bench) -> None:
    model = trained_regressor(["mae"], scale=1e4)
    best_of_log(bench, search(bench, model, regression(1e4, metric="mae"), policies=ALL), min)


def _mse(model, data):
    x, y = data
    return float(np.mean((model.predict(x, verbose=0) - y) ** 2))


def evaluate_min(bench: Bench) -> None:
    task = regression(evaluate=_mse, mode="min")
    best_of_log(bench, search(bench, trained_regressor(["mae"]), task, policies=ALL), min)


def evaluate_above_1(bench: Bench) -> None:
    def decibels(model, data):
        return -10 * np.log10(_mse(model, data))  # higher is better, and above 1

    task = regression(evaluate=decibels, mode="max")
    best_of_log(bench, search(bench, trained_regressor(["mae"]), task, policies=ALL), max)


def negative(bench: Bench) -> None:
    model = trained_regressor([keras.metrics.R2Score(name="r2")])
    best_of_log(bench, search(bench, model, regression(metric="r2"), policies=ALL), max)


def unknown_direction(bench: Bench) -> None:
    def oddity(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred))

    model = trained_regressor([oddity])
    search(bench, model, regression(metric="oddity"), policies=ALL)
    expect(False, "a metric of unknown direction was taken as higher is better")


def said_direction(bench: Bench) -> None:
    def oddity(y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred))

    model = trained_regressor([oddity])
    found = search(bench, model, regression(metric="oddity", mode="min"), policies=ALL)
    best_of_log(bench, found, min)


DOWN = (
    "mae mse mape msle poisson hinge squared_hinge categorical_hinge "
    "binary_crossentropy sparse_categorical_crossentropy categorical_crossentropy"
).split()
UP = ["accuracy", "acc", "binary_accuracy", "sparse_categorical_accuracy", "cosine_similarity"]
OBJECTS = {
    "max": ("AUC Precision Recall F1Score R2Score BinaryIoU TopKCategoricalAccuracy").split(),
    "min": (
        "MeanAbsoluteError RootMeanSquaredError MeanSquaredError FalsePositives "
        "FalseNegatives KLDivergence Poisson LogCoshError"
    ).split(),
}


def directions(bench: Bench) -> None:
    wrong = []
    for mode, names in (("min", DOWN), ("max", UP)):
        for name in names:
            wrong += [] if _mode(name, name) == mode else [name]
    for mode, classes in OBJECTS.items():
        for name in classes:
            metric = getattr(keras.metrics, name)(name="mine")
            wrong += [] if _mode("mine", metric) == mode else [name]
    expect(not wrong, f"the other way: {', '.join(wrong)}")


def _mode(name: str, metric) -> str:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse", metrics=[metric])
    x = np.zeros((4, 3), "float32"), np.zeros((4, 1), "float32")
    model.evaluate(*x, verbose=0)
    logs = model.evaluate(*x, verbose=0, return_dict=True)
    reported = name if name in logs else next(n for n in logs if n != "loss")
    return amc_tf.Task(train=x, validation=x, metric=reported).metric_of(model).mode


def early_stop(bench: Bench) -> None:
    model = trained_regressor(["mae"])
    task = regression(metric="mae", batch_size=10)
    best_of_log(bench, search(bench, model, task, policies=ALL, early_stop=1.0), min)


def _priced(bench: Bench, reward: str) -> None:
    """The reward of the paper: smaller error or fewer FLOPs are both better."""
    model = trained_regressor(["mae"])
    found = search(bench, model, regression(metric="mae"), policies=ALL, reward=reward, budget=None)
    lines = (bench.workdir / "episodes.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    cost = {"flops": "macs", "params": "params"}[reward]
    rows = [(r["score"], r[cost], r["reward"]) for r in records if cost in r]
    better = [(a, b) for a in rows for b in rows if a[0] < b[0] and a[1] <= b[1] and a[2] <= b[2]]
    expect(not better, f"a plan of lower MAE and cost has the lower reward: {better[:1]}")
    best = max(r["reward"] for r in records)
    expect(near(found.best[found.chosen].reward, best), "the best reward was not chosen")


def reward_flops(bench: Bench) -> None:
    _priced(bench, "flops")


def reward_params(bench: Bench) -> None:
    _priced(bench, "params")


def words(bench: Bench) -> None:
    compress(bench, trained_regressor(["mae"]), regression(metric="mae"))
    table = tables.table(RunResult.read(bench.workdir))
    expect("accuracy" not in table.lower(), "the table calls the MAE an accuracy")
    expect(re.search("mae|mean absolute error", table, re.I), "the table does not name the MAE")
    page = (bench.workdir / "report.html").read_text()
    text = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    expect("accuracy" not in text.lower(), "the report calls the MAE an accuracy")
    result = read(bench.workdir / "result.json")
    x, y = numbers(100, 1)
    small = load(bench.workdir / "finetuned.keras")
    wanted = float(np.mean(np.abs(small.predict(x, verbose=0) - y)))
    expect(near(value(result["finetuned"]), wanted), "the MAE is not Keras' own")


def tolerance(bench: Bench) -> None:
    """A float32 file whose MAE of a thousand differs in the seventh digit loses nothing."""
    result = compress(bench, trained_regressor(["mae"], scale=1e6), regression(1e6, metric="mae"))
    file = result["tflite"]["model_float32.tflite"]
    wanted = value(result["finetuned"])
    expect(near(value(file) / wanted, 1, 1e-3), "the file's MAE is another one")
    marked = tables.table(RunResult.read(bench.workdir))
    expect("!" not in marked and "loses" not in marked, "a rounding error is marked as a loss")


def named_data(bench: Bench) -> None:
    """Without test data the numbers are of the validation data, and must say so."""
    model = amc_tf.Compressor(
        dense(bench), amc_tf.Budget(macs=0.5), bench.workdir, settings(), trained=True
    )
    model.fit(*blobs.data(200, 0), validation_data=blobs.data(100, 1), verbose=0)
    table = tables.table(RunResult.read(bench.workdir))
    expect("test" not in table, "validation data are called test data")
    expect("validation" in table, "the table does not name its data")


def few_images(bench: Bench) -> str | None:
    """With ten validation images plans cannot be told apart; the log must say it."""
    search(bench, dense(bench), classification(validation=blobs.data(10, 1)))
    said = bench.heard(r"\b10\b.*(standard error|\bs\.e\.|uncertain|±|told apart)") or bench.heard(
        r"(standard error|told apart|uncertain|±).*\b10\b"
    )
    expect(said, "nothing said how uncertain a score on 10 images is")
    return said


def uncertainty(bench: Bench) -> None:
    compress(bench, dense(bench), classification())
    text = (bench.workdir / "result.json").read_text()
    expect(
        re.search("standard_error|stderr|uncertain|interval", text), "result.json has no error bars"
    )


CASES = {
    "the metric MAE is better when higher": mae,
    "the metric loss is better when higher": loss,
    "a renamed MeanAbsoluteError is better when higher": mae_object,
    "a MAE of thousands": large_mae,
    "evaluate returns a loss, mode='min'": evaluate_min,
    "evaluate returns decibels, above 1": evaluate_above_1,
    "a negative R2": negative,
    "a metric of unknown direction": unknown_direction,
    "a metric whose direction is said": said_direction,
    "directions of Keras' metrics": directions,
    "early stop with MAE": early_stop,
    "reward flops with MAE": reward_flops,
    "reward params with MAE": reward_params,
    "table and report call MAE accuracy": words,
    "tolerance of exports for a MAE of thousands": tolerance,
    "Compressor calls validation data test data": named_data,
    "ten validation images": few_images,
    "no uncertainty beside scores": uncertainty,
}
