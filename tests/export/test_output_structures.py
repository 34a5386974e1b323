"""What evaluates a file looks like the Keras model: names, nesting and shapes of its outputs."""

import keras
import marks
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
import tflite_tools
from amc_tf.export import exporter as export
from amc_tf.export.litert_model import as_keras
from amc_tf.scoring.tflite_scorer import LiteScorer
from amc_tf.training.compile_settings import CompileSettings

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 8, 8, 1)).astype("float32")
A = RNG.integers(0, 3, 48).astype("int32")
B = 0.1 * RNG.normal(size=(48, 1)).astype("float32")
CE, MSE = "sparse_categorical_crossentropy", "mse"


def net(pack):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = kl.Conv2D(6, 3, activation="relu", name="stem")(inputs)
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(8, 3, activation="relu", name="body")(x))
    cls = kl.Dense(3, activation="softmax", name="cls")(x)
    return keras.Model(inputs, pack(cls, kl.Dense(1, name="reg")(x)))


def listed(a, b):
    return [a, b]


def tupled(a, b):
    return (a, b)


def named(a, b):
    return {"cls": a, "reg": b}


def renamed(a, b):
    return {"zeta": a, "alpha": b}


def nested(a, b):
    return {"heads": [a, b]}


FORMS = {
    "list": (listed, [CE, MSE], [["accuracy"], ["mae"]], None, (A, B), "cls_accuracy"),
    "list by name": (
        listed,
        {"cls": CE, "reg": MSE},
        {"cls": "accuracy", "reg": ["mae"]},
        {"cls": 1.0, "reg": 0.5},
        {"cls": A, "reg": B},
        "cls_accuracy",
    ),
    "tuple": (tupled, (CE, MSE), None, [0.5, 2.0], (A, B), "loss"),
    "one metric": (listed, [CE, MSE], {"cls": "accuracy"}, None, (A, B), "cls_accuracy"),
    "dict": (
        named,
        {"cls": CE, "reg": MSE},
        {"cls": "accuracy", "reg": "mae"},
        {"cls": 1.0, "reg": 3.0},
        {"cls": A, "reg": B},
        "cls_accuracy",
    ),
    "dict by other names": (
        renamed,
        {"zeta": CE, "alpha": MSE},
        {"zeta": "accuracy"},
        None,
        {"zeta": A, "alpha": B},
        "zeta_accuracy",
    ),
    "nested": (nested, {"heads": [CE, MSE]}, None, None, {"heads": (A, B)}, "heads/cls_loss"),
}


@pytest.mark.parametrize(
    "form", marks.slow_but(FORMS, ["one metric", "dict by other names", "nested"])
)
def test_a_file_is_evaluated_as_its_model(form, tmp_path):
    pack, loss, metrics, weights, labels, metric = FORMS[form]
    model = net(pack)
    model.compile("adam", loss, metrics=metrics, loss_weights=weights)
    expected = model.evaluate(X, labels, verbose=0, return_dict=True)
    file = as_keras(tflite_tools.convert(model), model)
    assert file.output_names == model.output_names
    keras.tree.assert_same_structure(file(X[:2]), model(X[:2]))
    CompileSettings.of(model).apply(file)
    found = file.evaluate(X, labels, verbose=0, return_dict=True)
    assert metric in found and found == pytest.approx(expected, abs=1e-4)
    if "accuracy" in metric:
        data = (X, labels)
        task = amc_tf.Task(data, data, metric=metric, calibration_size=8)
        task.check(model)
        exporter = export.Exporter(model, model, task, export.ExportSettings(score_samples=24))
        told = exporter.write("float32", tmp_path / "m.tflite")
        half = keras.tree.map_structure(lambda a: a[np.linspace(0, 47, 24).astype(int)], data)
        by_keras = model.evaluate(*half, verbose=0, return_dict=True)[metric]
        assert told.score == pytest.approx(by_keras) and exporter.score == pytest.approx(by_keras)
        assert set(told.outputs) == set(metrics and file.output_names) or form.startswith("dict")


def test_plans_are_scored_by_name_too():
    """The search's engine, its labels in dictionaries, against Keras' own evaluation."""
    model = net(named)
    data = (X, {"cls": A, "reg": B})
    model.compile("adam", {"cls": CE, "reg": MSE}, metrics={"cls": "accuracy"})
    scorer = LiteScorer(amc_tf.analyze(model), amc_tf.Task(data, data, metric="cls_accuracy"), None)
    expected = model.evaluate(*data, verbose=0, return_dict=True)["cls_accuracy"]
    assert scorer(None) == pytest.approx(expected)


def test_another_metric_that_is_no_number_does_not_matter():
    inputs = keras.Input((8, 8, 1))
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(6, 3, activation="relu")(inputs))
    model = keras.Model(inputs, kl.Dense(3, activation="softmax")(kl.Dense(8)(x)))
    metrics = ["accuracy", keras.metrics.F1Score()]
    model.compile("adam", "categorical_crossentropy", metrics=metrics)
    data = (X, np.eye(3, dtype="float32")[A])
    task = amc_tf.Task(data, data)
    expected = np.mean(model.predict(X, verbose=0).argmax(-1) == A)
    assert LiteScorer(amc_tf.analyze(model), task, None)(None) == pytest.approx(expected)
    file = as_keras(tflite_tools.convert(model), model)
    assert task.score(task.compiled(file, model), data) == pytest.approx(expected)
