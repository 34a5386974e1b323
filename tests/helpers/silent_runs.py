"""A result of another run, and damaged products."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import blobs
import keras
import numpy as np
from keras import layers as kl
from silent_judge import Bench, expect
from silent_shared import FINISHED, FITTED, finished_settings, fit, fresh
from silent_tasks import (
    HALF,
    classification,
    compile_model,
    dense,
    load,
    near,
    search,
    searching,
    value,
)

import amc_tf

# --- Compressor.fit in an existing folder -----------------------------------------------------


def _old_network(bench: Bench) -> str:
    return _digest(bench, "finetuned.keras")


def _digest(bench: Bench, name: str) -> str:
    return str([w.sum() for w in load(bench.workdir / name).get_weights()])


def _fit_again(bench: Bench, model: keras.Model, data=None) -> None:
    bench.finished(FITTED)
    before = _old_network(bench)
    fit(bench.workdir, model, data)
    expect(_old_network(bench) != before, "hands out the network of the run before")


def fit_same(bench: Bench) -> None:
    """The control: the same call resumes."""
    bench.finished(FITTED)
    before = _old_network(bench)
    fit(bench.workdir, fresh())
    expect(_old_network(bench) == before, "the same call trains again")


def fit_architecture(bench: Bench) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(16, 5, activation="relu")(inputs)
    model = keras.Model(inputs, kl.Dense(4)(kl.GlobalAveragePooling2D()(x)))
    compile_model(model)
    _fit_again(bench, model)


def fit_data(bench: Bench) -> None:
    _fit_again(bench, fresh(), blobs.data(200, 99))


def fit_labels(bench: Bench) -> None:
    x, y = blobs.data(200, 0)
    _fit_again(bench, fresh(), (x, (y + 1) % 4))


def fit_weights(bench: Bench) -> None:
    _fit_again(bench, fresh(7))


def fit_rate(bench: Bench) -> None:
    model = fresh()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    _fit_again(bench, model)


# --- compress and search_plan in an existing folder -------------------------------------------


def _again(bench: Bench, **changes) -> dict:
    bench.finished(FINISHED)
    return amc_tf.compress(
        dense(bench), classification(**changes), HALF, bench.workdir, finished_settings()
    )


def _keras_accuracy(bench: Bench, data) -> float:
    x, y = data
    small = load(bench.workdir / "finetuned.keras")
    return float(np.mean(small.predict(x, verbose=0).argmax(-1) == y))


def _reported(bench: Bench, split: str) -> None:
    x, y = blobs.data(200, 1 if split == "validation" else 2)
    data = x, (y + 1) % 4
    result = _again(bench, **{split: data})
    got, wanted = value(result["finetuned"]), _keras_accuracy(bench, data)
    expect(near(got, wanted), f"reports {got:.1%} where {wanted:.1%} is true")


def same(bench: Bench) -> None:
    result = _again(bench)
    expect(near(value(result["finetuned"]), _keras_accuracy(bench, blobs.data(200, 1))), "wrong")


def compress_validation(bench: Bench) -> None:
    _reported(bench, "validation")


def compress_test(bench: Bench) -> None:
    _reported(bench, "test")


def _searched_anew(bench: Bench, model: keras.Model, task: amc_tf.Task, **changes) -> None:
    """Searches where another search was; the scores must be those of a new folder."""
    search(bench, dense(bench), classification())
    here = search(bench, model, task, **changes)
    there = amc_tf.search_plan(model, task, HALF, bench.folder / "new", searching(**changes))
    mine, other = (f.best[f.chosen].score for f in (here, there))
    expect(
        near(mine, other, 1e-6) and near(here.dense_score, there.dense_score),
        f"takes scores of another search: {mine:.3f} where a new folder has {other:.3f}",
    )


def search_weights(bench: Bench) -> None:
    model = dense(bench)
    rng = np.random.default_rng(1)
    model.set_weights([w + rng.normal(0, 0.1, w.shape) for w in model.get_weights()])
    _searched_anew(bench, model, classification())


def search_validation(bench: Bench) -> None:
    x, y = blobs.data(200, 1)
    _searched_anew(bench, dense(bench), classification(validation=(x, (y + 1) % 4)))


def search_refit(bench: Bench) -> None:
    _searched_anew(bench, dense(bench), classification(), refit="none", final_refit="none")


# --- finished products ------------------------------------------------------------------------

PRODUCTS = (
    "finetuned.keras",
    "pruned.keras",
    "model_float32.tflite",
    "plans/uniform.keras",
    "plans/uniform_finetuned.keras",
    "plans/dense_float32.tflite",
    "plan.json",
    "report.html",
)


def _product(name: str, kept: float | None, bench: Bench) -> None:
    """Damages a product; the same call must make it again, or say something."""
    path = bench.finished(FINISHED) / name
    if not path.exists():
        raise RuntimeError(f"{name} is no product of the finished run")
    whole = path.read_bytes()
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(whole[: int(kept * len(whole))])
    amc_tf.compress(dense(bench), classification(), HALF, bench.workdir, finished_settings())
    size = path.stat().st_size if path.exists() else -1
    expect(size > 0.8 * len(whole), f"success with {size:,} bytes of {len(whole):,} in {name}")
    if name.endswith(".keras"):
        load(path)
    if name.endswith(".json"):
        amc_tf.PruningPlan.load(path)


def edited_plan(bench: Bench) -> None:
    path = bench.finished(FINISHED) / "plan.json"
    plan = json.loads(path.read_text())
    groups = plan.get("keep", plan)
    name = next(n for n, kept in groups.items() if isinstance(kept, list) and len(kept) > 2)
    groups[name] = groups[name][:2]
    plan.pop("crc32", None)
    path.write_text(json.dumps(plan))
    before = _digest(bench, "pruned.keras")
    amc_tf.compress(dense(bench), classification(), HALF, bench.workdir, finished_settings())
    used = _digest(bench, "pruned.keras") != before
    expect(used, "the edited plan is ignored, and the run is called done")


def other_budget(bench: Bench) -> None:
    """The control of the configuration: another budget is another run."""
    bench.finished(FINISHED)
    amc_tf.compress(
        dense(bench), classification(), amc_tf.Budget(macs=0.7), bench.workdir, finished_settings()
    )
    expect(False, "the run of another budget is handed out")


def other_model(bench: Bench) -> None:
    """compress of a model with other weights, of the same shapes."""
    bench.finished(FINISHED)
    model = dense(bench)
    model.set_weights([0.9 * w for w in model.get_weights()])
    amc_tf.compress(model, classification(), HALF, bench.workdir, finished_settings())
    expect(False, "the run of another model is handed out")


def other_rate(bench: Bench) -> None:
    """compress whose task compiles with another learning rate: fine-tuning is another one."""

    def compile_(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-6), loss, metrics=["accuracy"])

    bench.finished(FINISHED)
    before, printed = _old_network(bench), len(bench.output.read_text())
    amc_tf.compress(
        dense(bench), classification(compile=compile_), HALF, bench.workdir, finished_settings()
    )
    # The better of before and after the fine-tuning may be the same network, but it was tried.
    trained = "loss: " in bench.output.read_text()[printed:]
    other = trained or _old_network(bench) != before
    expect(other, "hands out the network of another learning rate")


def _damaged() -> dict[str, Callable[[Bench], None]]:
    cases: dict[str, Callable[[Bench], None]] = {}
    for name in PRODUCTS:
        cases[f"{name} cut in half"] = functools.partial(_product, name, 0.5)
        cases[f"{name} emptied"] = functools.partial(_product, name, 0.0)
    for name in ("finetuned.keras", "plans/uniform.keras", "plans/dense_float32.tflite"):
        cases[f"{name} removed"] = functools.partial(_product, name, None)
    return cases


CASES = {
    "fit again, the same (control)": fit_same,
    "fit again with another architecture": fit_architecture,
    "fit again with other data": fit_data,
    "fit again with other labels": fit_labels,
    "fit again with other initial weights": fit_weights,
    "fit again with another learning rate": fit_rate,
    "compress again, the same (control)": same,
    "compress again with other validation labels": compress_validation,
    "compress again with other test labels": compress_test,
    "compress again with another budget (control)": other_budget,
    "compress again with another model": other_model,
    "compress again with another learning rate": other_rate,
    "search_plan again with other weights": search_weights,
    "search_plan again with other validation labels": search_validation,
    "search_plan again with another refit": search_refit,
    **_damaged(),
    "plan.json edited by hand": edited_plan,
}
