"""Data and training code that cannot be used are refused before any work."""

import dataclasses

import blobs
import keras
import numpy as np
import pytest
import tensorflow as tf

import amc_tf

X, Y = blobs.data(40, 0)


@pytest.fixture(scope="module")
def net():
    return blobs.trained(1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train": (X[:, :7], Y)}, r"train data has the shape \(40, 7, 8, 1\).*\(None, 8, 8, 1\)"),
        ({"validation": (X, Y + 1)}, "labels range from 1 to 4.*4 outputs.*0 to 3"),
        ({"test": (X, Y - 1)}, "test labels range from -1"),
        ({"train": (X, (Y + 1).astype("float32"))}, "train labels range from 1 to 4"),
        ({"validation": (X, np.eye(4)[Y])}, "cannot be evaluated on the validation .*ValueError"),
        ({"validation": (X, Y.astype(str))}, "validation data has the type .* in its labels"),
        ({"train": (X.astype(object), Y)}, "train data has the type object in its input"),
        ({"test": (X.astype(complex), Y)}, "test data has the type complex128 in its input"),
        ({"train": (X, Y, Y.astype(str))}, "train data has the type .* in its sample weights"),
        ({"train": (X, Y[:-1])}, "40 inputs but 39 labels"),
        ({"train": (X[:0], Y[:0])}, "train data is empty"),
        ({"train": (X * np.nan, Y)}, "not finite"),
        ({"train": X}, "expected data of pairs"),
        ({"validation": 3}, "validation data: expected"),
        ({"train": ([X, X], Y)}, "1 inputs, the data 2"),
        ({"train": ({"image": X}, Y)}, "lacks the model's input"),
        ({"calibration": X[:, :7]}, "calibration data has the shape"),
        (
            {"metric": "f1"},
            r"does not report the metric 'f1'; it reports 'accuracy', 'loss' \(mode min",
        ),
        ({"train": tf.data.Dataset.from_tensor_slices((X, Y))}, "train data has the shape"),
        ({"train": tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(2)}, "is empty"),
    ],
)
def test_bad_data(net, changes, message):
    with pytest.raises(amc_tf.AmcError, match=message):
        blobs.task(**changes).check(net)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_labels_of_positions_are_classes(dtype):
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 1, activation="softmax")(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    right = np.zeros((40, 8, 8), dtype)
    wrong = right.copy()
    wrong[39, 7, 7] = 255
    amc_tf.Task(train=(X, right[..., None]), validation=(X, right)).check(model)
    with pytest.raises(amc_tf.AmcError, match="train labels range from 0 to 255, .* 4 outputs"):
        amc_tf.Task(train=(X, wrong), validation=(X, right)).check(model)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.SparseCategoricalCrossentropy(),
    ],
)
def test_each_output_has_the_labels_of_its_own_loss(loss):
    inputs = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(inputs)
    heads = {
        "kind": keras.layers.Dense(3, activation="softmax", name="kind")(flat),
        "size": keras.layers.Dense(2, name="size")(flat),
    }
    model = keras.Model(inputs, heads)
    model.compile("sgd", {"kind": loss, "size": "mse"}, metrics={"kind": "accuracy"})
    right = {"kind": (Y % 3).astype("float32"), "size": np.full((40, 2), 7.0)}
    task = amc_tf.Task((X, right), (X, right), metric="kind_accuracy")
    task.check(model)
    wrong = {**right, "kind": Y.astype("float32")}
    with pytest.raises(amc_tf.AmcError, match="train labels range from 0 to 3, .* 3 outputs"):
        dataclasses.replace(task, train=(X, wrong)).check(model)


def test_labels_of_a_binary_loss_are_probabilities():
    inputs = keras.Input((8, 8, 1))
    out = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, out)
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    right = (X, Y % 2)
    amc_tf.Task(right, (X, (Y % 2).astype(bool))).check(model)
    for labels in (Y % 2 + 1, Y % 2 * 2 - 1, Y):
        with pytest.raises(amc_tf.AmcError, match="labels range .*binary_crossentropy .* 0 to 1"):
            amc_tf.Task((X, labels), right).check(model)
    unlabelled = Y % 2 - 1  # which the weights leave out
    amc_tf.Task((X, unlabelled, (unlabelled >= 0).astype("float32")), right).check(model)


def test_splits_of_different_scale_are_told(net, caplog):
    x = np.abs(X) / np.abs(X).max()
    blobs.task(train=(x, Y), validation=(x, Y), calibration=x[:20]).check(net)
    assert "preprocessed in another way" not in caplog.text
    whole = (255 * x).astype("uint8")
    blobs.task(train=(x, Y), validation=(x, Y), calibration=whole).check(net)
    assert "samples of the calibration data hold values up to" in caplog.text


def test_labels_that_the_loss_ignores_are_no_classes(net):
    def compiled(ignored):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)
        return lambda model: model.compile("sgd", loss, metrics=["accuracy"])

    labels = np.where(Y == 3, -1, Y)
    blobs.task(validation=(X, labels), compile=compiled(-1)).check(net)
    with pytest.raises(amc_tf.AmcError, match="validation labels range from -1 to 2"):
        blobs.task(validation=(X, labels), compile=compiled(3)).check(net)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high", None])
def test_bad_scores(net, value):
    with pytest.raises(amc_tf.AmcError, match="evaluate"):
        blobs.task(evaluate=lambda model, data: value).score(net, None)


def test_dataset_and_arrays_score_alike(net):
    arrays = blobs.data(50, 5)
    batches = tf.data.Dataset.from_tensor_slices(arrays).batch(7)
    task = blobs.task()
    task.check(net)
    expected = np.mean(np.argmax(net.predict(arrays[0], verbose=0), -1) == arrays[1])
    assert task.score(net, arrays) == pytest.approx(expected)
    assert task.score(net, batches) == pytest.approx(expected)
    (all_of_them,) = blobs.task(train=batches, calibration_size=50).calibration_inputs(net)
    np.testing.assert_array_equal(all_of_them, arrays[0])


def test_compile_settings_are_the_dense_models_own(net):
    pruned = keras.Model(net.inputs, net.outputs)
    task = blobs.task(compile=None)
    task.compiled(pruned, net)
    assert pruned.optimizer is not net.optimizer
    assert task.score(pruned, blobs.data(20, 3)) <= 1
    with pytest.raises(amc_tf.AmcError, match="not compiled"):
        bare = keras.Model(net.inputs, net.outputs)
        task.compiled(bare, bare)


def test_fine_tuning_that_diverges_is_an_error(net):
    def explode(model):
        model.layers[-1].kernel.assign(model.layers[-1].kernel * np.nan)

    copy = keras.models.clone_model(net)
    with pytest.raises(amc_tf.AmcError, match="lower the learning rate"):
        amc_tf.fine_tune(copy, net, blobs.task(fine_tune=explode))


def test_load_model_errors(tmp_path):
    with pytest.raises(amc_tf.AmcError, match="there is no model file"):
        amc_tf.load_model(tmp_path / "absent.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(amc_tf.AmcError, match="cannot be loaded as a Keras model"):
        amc_tf.load_model(tmp_path / "text.keras")


@pytest.mark.parametrize(
    "names, message",
    [
        (("my net", "dense"), "the model is named 'my net'; TensorFlow takes letters"),
        (("_net", "dense"), "the model is named '_net'"),
        (("net", "dense:1"), "the layer is named 'dense:1'"),
        (("net", "_dense"), None),
    ],
)
def test_names_that_tensorflow_refuses(names, message):
    inputs = keras.Input((8, 8, 1))
    inner = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4, name=names[1])])
    model = keras.Model(inputs, inner(inputs), name=names[0])
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    task = blobs.task()
    if message is None:
        task.check(model)
    else:
        with pytest.raises(amc_tf.AmcError, match=message):
            task.check(model)
    later = keras.layers.Dense(2, name="later")
    later.build((None, 4))
    assert later.kernel.path == "later/kernel"
