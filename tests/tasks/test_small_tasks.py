"""Tasks of every kind, with data in every form, each from a trained model to checked files.

The plan that is chosen must be the best of the log in the metric's own direction, and every number
that is reported must be the task's formula, computed here in NumPy from the outputs of the very
model or file that it stands for.
"""

import itertools
import json

import blobs
import keras
import marks
import numpy as np
import pytest
from small_tasks import FORMS, TASKS, in_form

import amc_tf
import tflite_tools
from amc_tf.runs.result import RunResult

SETTINGS = amc_tf.Settings(
    rehearse=False,
    search=blobs.search_settings(episodes=4, policies=("amc", "uniform", "random")),
    export=amc_tf.ExportSettings(latency_rounds=1, latency_runs=2, latency_min_secs=0.01),
)
BUDGET = amc_tf.Budget(macs=0.4)
PAIRS = list(itertools.product(TASKS, FORMS))
# A dict of outputs and a Sequential model stand for all, which are among the slow tests.
FAST = {("two heads", "tf.data"), ("multi-label", "arrays")}


@pytest.mark.parametrize(("name", "form"), marks.slow_but(PAIRS, FAST))
def test_compress(name, form, tmp_path):
    small = TASKS[name]
    keras.utils.set_random_seed(0)
    model = small.model()
    model.compile(**small.compile())
    model.fit(
        in_form("tf.data", *small.split("train")), epochs=small.epochs, verbose=0, **small.fit
    )
    task = amc_tf.Task(
        **{part: in_form(form, *small.split(part)) for part in ("train", "validation", "test")},
        metric=small.metric,
        mode=small.mode,
        batch_size=32,
        calibration_size=64,
    )
    amc_tf.compress(model, task, BUDGET, tmp_path, SETTINGS)
    _check(small, tmp_path, "test")


COMPRESSED = [("binary", "PyDataset"), ("regression", "arrays")]


@pytest.mark.parametrize(("name", "form"), marks.slow_but(COMPRESSED, ()))
def test_compressor(name, form, tmp_path):
    """Without test data, the numbers are of the validation data, and are said to be."""
    small = TASKS[name]
    keras.utils.set_random_seed(0)
    model = small.model()
    model.compile(**small.compile())
    wrapped = amc_tf.Compressor(
        model, BUDGET, tmp_path, SETTINGS, metric=small.metric, mode=small.mode
    )
    train, validation = (in_form(form, *small.split(p)) for p in ("train", "validation"))
    given = {"x": train}
    if form == "arrays":
        names = ("x", "y", "sample_weight")[: len(train)]
        given = {**dict(zip(names, train, strict=True)), "batch_size": 32}
    wrapped.fit(
        **given,
        epochs=small.epochs,
        verbose=0,
        validation_data=validation,
        **small.fit,
    )
    _check(small, tmp_path, "validation")
    report = (tmp_path / "report.html").read_text()
    assert "validation" in report and "test data" not in report


def _check(small, folder, part):
    episodes = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    scores = [episode["score"] for episode in episodes]
    assert len(set(scores)) > 1
    result = RunResult.read(folder)
    best = max(scores) if small.up else min(scores)
    chosen = result.policies[result.chosen]
    # The best, or a plan that cannot be told apart from it.
    tied = [candidate.score for candidate in result.choice.candidates]
    assert (max(tied) if small.up else min(tied)) == pytest.approx(best, rel=1e-4)
    assert chosen.search_score == tied[0]

    x, y, weight = small.split("validation")
    pruned = keras.models.load_model(folder / "pruned.keras", compile=False)
    found = small.formula(y, pruned.predict(x, verbose=0), weight)
    assert chosen.search_score == pytest.approx(found, rel=2e-3, abs=2e-3)

    x, y, weight = small.split(part)
    for name in ("pruned", "finetuned"):
        model = keras.models.load_model(folder / f"{name}.keras", compile=False)
        found = small.formula(y, model.predict(x, verbose=0), weight)
        assert getattr(result, name).score == pytest.approx(found, rel=2e-3, abs=2e-3)
    for name in ("model_float32.tflite", "model_int8.tflite"):
        file = tflite_tools.LiteRtModel((folder / name).read_bytes())
        arrays = keras.tree.flatten(x)
        outputs = file.predict(arrays if arrays[1:] else arrays[0])
        if isinstance(y, dict):
            outputs = dict(zip(sorted(y), outputs, strict=True))
        told = result.tflite[name].score
        assert told == pytest.approx(small.formula(y, outputs, weight), rel=2e-3, abs=2e-3)
    report = (folder / "report.html").read_text()
    assert small.title in report
    if "accuracy" not in small.title:  # which the configuration may name
        assert "ccuracy" not in report.split("Configuration")[0]


def test_the_forms_hold_the_same_samples():
    """So that the table compares forms, not data."""
    parts = TASKS["regression"].split("validation")
    for form in FORMS:
        data = in_form(form, *parts)
        batches = [data] if form == "arrays" else list(data)
        for wanted, *given in zip(parts, *batches, strict=True):
            np.testing.assert_array_equal(np.concatenate(given), wanted)
