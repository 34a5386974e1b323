"""Labels beside the samples of `amc-export --representative`: what is measured, and its name."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
from amc_tf.export import exporter as export
from amc_tf.export import standalone

RNG = np.random.default_rng(0)
X = RNG.normal(size=(39, 4)).astype("float32")
BITS = RNG.integers(0, 2, (39, 3))
CLASSES = RNG.integers(0, 3, 39)
REAL = RNG.normal(size=39).astype("float32")


def net(units, activation=None, loss=None, metrics=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, kl.Dense(units, activation=activation, name="out")(inputs))
    if loss is not None:
        model.compile("sgd", loss, metrics=metrics)
    return model


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "s.npz", **arrays)
    return tmp_path / "s.npz"


def measured(model, path):
    """The task's metric, and its value on the model as the exporter takes it."""
    task = standalone.representative_task(model, path)
    settings = export.ExportSettings(latency_rounds=0)
    exporter = export.Exporter(model, model, task, settings)
    file = exporter.write("float32", path.with_name("f.tflite"))
    reference, found = (getattr(x, "score", None) or x.accuracy for x in (exporter, file))
    assert found == pytest.approx(reference, abs=1e-5)
    return task.metric, reference


@pytest.mark.parametrize(
    "loss, metrics, name",
    [
        ("binary_crossentropy", ["accuracy"], "accuracy"),
        ("binary_crossentropy", [keras.metrics.F1Score(), "mae", "accuracy"], "mae"),
        ("mse", None, "loss"),
    ],
)
def test_the_models_own_metric(tmp_path, loss, metrics, name):
    """Zeros and ones for one sigmoid; Keras' own evaluate says the number."""
    model = net(1, "sigmoid", loss, metrics)
    y = BITS[:, :1].astype("float32")
    found = measured(model, saved(tmp_path, x=X, y=y))
    assert found[0] == name
    expected = model.evaluate(X, y, verbose=0, return_dict=True)[name]
    assert found[1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "units, activation, labels, name, by_hand",
    [
        (1, "sigmoid", BITS[:, 0], "binary_accuracy", lambda p: (p[:, 0] > 0.5) == BITS[:, 0]),
        (1, None, BITS[:, :1], "binary_accuracy", lambda p: (p[:, 0] > 0) == BITS[:, 0]),
        (3, "softmax", np.eye(3)[CLASSES], "accuracy", lambda p: p.argmax(-1) == CLASSES),
        (3, None, CLASSES[:, None], "accuracy", lambda p: p.argmax(-1) == CLASSES),
        (3, None, CLASSES.astype("float64"), "accuracy", lambda p: p.argmax(-1) == CLASSES),
        (3, "sigmoid", BITS, "binary_accuracy", lambda p: (p > 0.5) == BITS),
        (1, None, REAL, "r2_score", lambda p: 1 - np.mean((p[:, 0] - REAL) ** 2) / REAL.var()),
        (3, None, None, "agreement", lambda p: 1.0),
        (1, None, None, "r2_score", lambda p: 1.0),
    ],
)
def test_uncompiled(tmp_path, units, activation, labels, name, by_hand):
    model = net(units, activation)
    given = {} if labels is None else {"y": labels}
    found = measured(model, saved(tmp_path, x=X, **given))
    assert found[0] == name
    expected = np.mean(by_hand(model.predict(X, verbose=0)))
    assert found[1] == pytest.approx(expected, abs=1e-5)


def two_outputs(compiled):
    inputs = keras.Input((4,), name="image")
    outputs = {"kind": kl.Dense(3, name="k")(inputs), "size": kl.Dense(1, name="s")(inputs)}
    model = keras.Model(inputs, outputs)
    if compiled:
        sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = {"size": keras.metrics.MeanAbsoluteError(name="off")}
        model.compile("sgd", {"kind": sparse, "size": "mse"}, metrics=metrics)
    return model


def test_labels_of_several_outputs_by_name(tmp_path):
    model = two_outputs(compiled=True)
    off = 0.3 * REAL
    size = model.predict(X, verbose=0)["size"][:, 0] + off
    both = measured(model, saved(tmp_path, image=X, kind=CLASSES, size=size[:, None]))
    assert both[0] == "size_off"
    assert both[1] == pytest.approx(np.abs(off).mean(), rel=1e-4)
    one = measured(model, saved(tmp_path, image=X, size=size))
    assert one[0] == "r2_score"
    assert one[1] == pytest.approx(1 - np.mean(off**2) / size.var(), rel=1e-4)
    first = measured(two_outputs(compiled=False), saved(tmp_path, x=X, y=CLASSES))
    assert first[0] == "accuracy"


@pytest.mark.parametrize(
    "model, labels, message",
    [
        (net(3), RNG.random((39, 2)), r"shape \(39, 2\), but it has the shape \(39, 3\)"),
        (net(3), CLASSES + 1, "range from 1 to 3, but its 3 numbers stand for labels 0 to 2"),
        (net(3), CLASSES * np.nan, "no finite numbers"),
        (net(3, None, "mse", ["mae"]), np.zeros((39, 5)), "do not fit the loss and metrics"),
    ],
)
def test_labels_that_fit_in_no_way(tmp_path, model, labels, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        standalone.representative_task(model, saved(tmp_path, x=X, y=labels))


@pytest.mark.parametrize(
    ("loss", "labels", "agreement"),
    [
        ("mse", RNG.normal(size=(39, 3)), None),
        (keras.losses.CategoricalCrossentropy(), np.eye(3)[CLASSES], 1.0),
        (keras.losses.sparse_categorical_crossentropy, CLASSES, 1.0),
    ],
)
def test_the_largest_of_several_values_counts_where_they_are_classes(
    tmp_path, loss, labels, agreement
):
    model = net(3, "softmax", loss, ["mae" if loss == "mse" else "accuracy"])
    task = standalone.representative_task(model, saved(tmp_path, x=X, y=labels))
    exporter = export.Exporter(model, model, task, export.ExportSettings())
    assert exporter.write("float32", tmp_path / "f.tflite").agreement == agreement


def test_a_metric_whose_direction_nobody_can_know_is_passed_over(tmp_path, caplog):
    def spread(y, outputs):
        return keras.ops.std(outputs - y, axis=-1)

    y = BITS[:, :1].astype("float32")
    path = saved(tmp_path, x=X, y=y, lables=y)
    assert measured(net(1, "sigmoid", "mse", [spread, "mae"]), path)[0] == "mae"
    assert "more of the metric 'spread' is better: files are scored by 'mae'" in caplog.text
    assert "named after no input or output, and are not read: lables" in caplog.text


def test_a_sample_that_rules_all_ranges_is_refused(tmp_path):
    wide = X.copy()
    wide[7, 2] = 1e25
    with pytest.raises(amc_tf.AmcError, match=r"s.npz data: sample 7 holds 1e\+25 in the input"):
        standalone.representative_task(net(3), saved(tmp_path, x=wide, y=CLASSES))


def test_floats_are_written_whatever_the_calibration_data_hold(tmp_path):
    model = net(3)
    bad = X.copy()
    bad[7, 2] = np.inf
    task = amc_tf.Task((X, CLASSES), (X, CLASSES), evaluate=lambda *_: 0.5, calibration=bad)
    exporter = export.Exporter(model, model, task, export.ExportSettings())
    exporter.write("float32", tmp_path / "f.tflite")
    with pytest.raises(amc_tf.AmcError, match="int8 export: sample 7 of the calibration inputs"):
        exporter.write("int8", tmp_path / "i.tflite")


@pytest.mark.parametrize(
    ("dtype", "values", "told"),
    [
        ("uint8", [0.5, 1.0], "value 0.5"),
        ("uint8", [3, 300], "value 300"),
        ("int32", [np.nan], "not finite"),
    ],
)
def test_inputs_that_an_integer_type_cannot_hold(tmp_path, dtype, values, told):
    inputs = keras.Input((4,), dtype=dtype)
    model = keras.Model(inputs, kl.Dense(2)(kl.Rescaling(0.1)(inputs)))
    path = saved(tmp_path, x=np.resize(values, (6, 4)))
    with pytest.raises(amc_tf.AmcError, match=told):
        standalone.representative_task(model, path)
    path = saved(tmp_path, x=np.full((6, 4), 7.0))  # whole numbers, whatever their type
    assert standalone.representative_task(model, path).train[0].dtype == dtype


def test_samples_that_the_model_cannot_compute(tmp_path):
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, kl.Flatten()(kl.Embedding(5, 2)(inputs)))
    path = saved(tmp_path, x=np.full((6, 4), 9))
    with pytest.raises(amc_tf.AmcError, match=r"on the samples \(.*not in \[0, 5\).*\); give"):
        standalone.representative_task(model, path)


def test_the_folder_of_a_run_is_not_written_to(tmp_path):
    model, folder = net(3), tmp_path / "run"
    folder.mkdir()
    for name in ("config.json", "result.json"):
        (folder / name).write_text("{}")
    task = standalone.representative_task(model, saved(tmp_path, x=X, y=CLASSES))
    with pytest.raises(amc_tf.AmcError, match="folder of a run"):
        standalone.export_model(model, task, folder, export.ExportSettings(latency_rounds=0))
    assert {path.name for path in folder.iterdir()} == {"config.json", "result.json"}
