"""The tiny tasks and settings of the cases that `silent_judge` judges."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

import blobs
import keras
import numpy as np
from keras import layers as kl
from silent_judge import Bench, early, expect

import amc_tf

HALF = amc_tf.Budget(macs=0.5)
FAST = amc_tf.ExportSettings(
    formats=("float32",), latency_rounds=1, latency_runs=2, latency_min_secs=0.0, bias_samples=0
)


def searching(**changes: Any) -> amc_tf.SearchSettings:
    values = {"episodes": 3, "policies": ("amc", "uniform", "deep")}
    return blobs.search_settings(**{**values, **changes})


def settings(**changes: Any) -> amc_tf.Settings:
    # Left out, as every case would wait for it; cases of what it finds ask for it.
    values = {"rehearse": False, "search": searching(), "export": FAST}
    return amc_tf.Settings(**{**values, **changes})


def rehearsing(*formats: str) -> amc_tf.Settings:
    """Settings with the rehearsal, which is what a user has by default."""
    export = dataclasses.replace(FAST, formats=formats or FAST.formats)
    return settings(rehearse=True, export=export)


def compile_model(model: keras.Model) -> None:
    """As in `blobs`, but eager: on so few batches, tracing is what takes time."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"], run_eagerly=True)


def dense(bench: Bench) -> keras.Model:
    """The trained classifier of `blobs`, compiled."""
    model = load(bench.made("blobs.keras"))
    compile_model(model)
    return model


def compress(bench: Bench, model: Any, task: amc_tf.Task, **changes: Any) -> dict[str, Any]:
    """Compresses into the bench's work directory; errors must come before the search."""
    values = {"budget": HALF, "settings": settings()} | changes
    with early(bench.workdir):
        return amc_tf.compress(model, task, workdir=bench.workdir, **values)


def scores(workdir: pathlib.Path) -> list[float]:
    """The values of the metric of all episodes, as logged."""
    lines = (workdir / "episodes.jsonl").read_text().splitlines()
    return [r.get("score", r.get("accuracy")) for r in map(json.loads, lines)]


def read(path: pathlib.Path) -> Any:
    return json.loads(path.read_text())


def value(part: dict[str, Any]) -> float:
    """The metric's value in a section of `result.json`, of this version or earlier ones."""
    return part["score"] if "score" in part else part["accuracy"]


def load(path: str | os.PathLike) -> keras.Model:
    return keras.models.load_model(path, compile=False)


def near(found: float, wanted: float, slack: float = 1e-3) -> bool:
    return abs(found - wanted) <= slack * max(1.0, abs(wanted))


# --- regression: how bright the bright quadrant's number is -----------------------------------


def numbers(count: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    x, y = blobs.data(count, seed)
    return x, scale * (0.1 + 0.3 * y.astype("float32")[:, None])


def regressor(scale: float = 1.0) -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    x = kl.Dense(24, activation="relu", name="hidden")(kl.Flatten()(kl.MaxPooling2D()(x)))
    x = kl.Dense(1, name="out")(x)
    if scale != 1:
        x = kl.Rescaling(scale)(x)
    return keras.Model(inputs, x, name="numbers")


def trained_regressor(metrics: Any, loss: Any = "mse", scale: float = 1.0) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = regressor(scale)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=metrics, run_eagerly=True)
    model.fit(*numbers(400, 0, scale), epochs=8, verbose=0)
    return model


def regression(scale: float = 1.0, **changes: Any) -> amc_tf.Task:
    values = {
        "train": numbers(200, 0, scale),
        "validation": numbers(100, 1, scale),
        "calibration_size": 64,
    }
    return amc_tf.Task(**{**values, **changes})


def classification(**changes: Any) -> amc_tf.Task:
    values = {
        "epochs": 1,
        "train": blobs.data(200, 0),
        "test": None,
        "compile": compile_model,
        "calibration_size": 64,
    }
    return blobs.task(**{**values, **changes})


def best_of_log(bench: Bench, found: amc_tf.SearchResult, best: Any) -> None:
    """The chosen plan must be the best of the log, by `best` (min or max), or tied with it."""
    logged = scores(bench.workdir)
    expect(len(set(logged)) > 1, "the episodes do not differ: the case shows nothing")
    chosen = found.best[found.chosen]
    choice = getattr(found, "choice", None)
    if choice is None:  # of a version that chose by the score alone
        got = getattr(chosen, "score", getattr(chosen, "accuracy", None))
    else:
        got = best(candidate.score for candidate in choice.candidates)
    expect(
        near(got, best(logged), 1e-6),
        f"chose {got:.4g} of {', '.join(f'{v:.4g}' for v in sorted(set(logged)))}",
    )


def search(bench: Bench, model: Any, task: amc_tf.Task, **changes: Any) -> amc_tf.SearchResult:
    """Searches in the bench's work directory."""
    budget = changes.pop("budget", HALF)
    with early(bench.workdir):
        return amc_tf.search_plan(model, task, budget, bench.workdir, searching(**changes))
