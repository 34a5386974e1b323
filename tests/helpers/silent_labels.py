"""amc-export of any Keras file: what it measures on a file of samples."""

from __future__ import annotations

import functools
from collections.abc import Callable

import blobs
import keras
import numpy as np
from keras import layers as kl
from silent_judge import Bench, accepted, expect
from silent_tasks import near, settings, trained_regressor, value

import amc_tf


def _represented(model: keras.Model, x, y, name: str) -> tuple[float, float, str]:
    from amc_tf.export import standalone
    from amc_tf.report import export_table
    from amc_tf.runs.result import ExportResult

    model.save("net.keras")
    np.savez("samples.npz", x=x, y=y)
    model = amc_tf.load_model("net.keras")
    task = standalone.representative_task(model, "samples.npz")
    told = standalone.export_model(model, task, "files", settings().export)
    wanted = model.evaluate(x, y, verbose=0, return_dict=True)[name]
    return value(told["keras"]), wanted, export_table.table(ExportResult.from_json(told), 0.01)


def _representative(make: Callable, bench: Bench) -> None:
    with accepted():
        got, wanted, table = _represented(*make())
    if near(got, wanted):
        return
    expect("accuracy" not in table, f"reports accuracy {got:.1%} where Keras says {wanted:.1%}")


def _trained(units: int, activation: str, loss: str, y, metric: str):
    keras.utils.set_random_seed(0)
    x, _ = blobs.data(300, 4)
    inputs = keras.Input((8, 8, 1))
    h = kl.Dense(16, "relu")(kl.Flatten()(kl.Conv2D(4, 3, activation="relu")(inputs)))
    model = keras.Model(inputs, kl.Dense(units, activation)(h))
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=[metric])
    model.fit(x[:150], y[:150], epochs=3, verbose=0)
    return model, x, y, metric


def binary_labels():
    y = blobs.data(300, 4)[1] % 2
    return _trained(1, "sigmoid", "binary_crossentropy", y, "binary_accuracy")


def one_hot_labels():
    y = np.eye(4, dtype="float32")[blobs.data(300, 4)[1]]
    return _trained(4, "softmax", "categorical_crossentropy", y, "categorical_accuracy")


def multi_labels():
    y = blobs.data(300, 4)[1]
    many = np.stack([y % 2, y // 2, y > 0], 1).astype("float32")
    return _trained(3, "sigmoid", "binary_crossentropy", many, "binary_accuracy")


LABELS = {
    "binary labels": binary_labels,
    "one-hot labels": one_hot_labels,
    "multi-label labels": multi_labels,
}


def representative_regression(bench: Bench) -> None:
    """A regression's number must not be called an accuracy."""
    x, y = blobs.data(100, 4)
    model = trained_regressor(["mae"])
    got, wanted, table = _represented(model, x, y.astype("float32")[:, None], "mae")
    expect(
        near(got, wanted) or "accuracy" not in table,
        f"reports accuracy {got:.1%} where Keras says a MAE of {wanted:.3f}",
    )


CASES = {
    **{
        f"amc-export --representative, {n}": functools.partial(_representative, m)
        for n, m in LABELS.items()
    },
    "amc-export --representative, regression": representative_regression,
}
