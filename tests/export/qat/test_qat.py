"""Quantisation-aware training: the emulation is the file; training repairs what rounding broke."""

import os
import subprocess
import sys
import textwrap

import blobs
import keras
import numpy as np
import pytest
import tf_keras
import zoo
from keras import layers as kl

import amc_tf
import tflite_tools
from amc_tf.export import exporter as export
from amc_tf.export.qat import training

FULLY_INTEGER = ("residual", "squeeze_excite", "zero_padded_shortcut", "two_outputs", "grouped")


def calibrated(model, x):
    found = training.quantised(model)
    found.calibrate(x if isinstance(x, list) else [x])
    return found


@pytest.mark.parametrize("name", [*FULLY_INTEGER, "depthwise_multiplier", "shared_layers"])
def test_the_file_does_what_was_emulated(name):
    """Else the training would learn to repair another rounding than that of the file."""
    model = zoo.build(name)
    x = zoo.sample(model, 8)
    found = calibrated(model, x)
    emulated = zoo.outputs(found.model, x)
    content = tflite_tools.convert(found.model, "int8_trained")
    lite = tflite_tools.LiteRtModel(content)
    assert lite.signature == tflite_tools.LiteRtModel(tflite_tools.convert(model)).signature
    for a, b in zip(emulated, keras.tree.flatten(lite.predict(x)), strict=True):
        # A value on the edge between two steps may fall to either, and again in a layer behind.
        assert np.abs(a - b).max() <= 3 / 255 * np.ptp(a)
    if name in FULLY_INTEGER:
        assert not found.float_layers
        assert not tflite_tools.inspect_file(content).float_operators


def test_layers_without_a_rule_stay_float_and_are_named():
    model = zoo.build("depthwise_multiplier")
    found = calibrated(model, zoo.sample(model, 4))
    (named,) = found.float_layers
    assert "SeparableConv2D" in named
    shared = training.quantised(zoo.build("shared_layers")).float_layers
    assert {text.split("(")[1].split(",")[0] for text in shared} == {"Conv2D", "BatchNormalization"}


def test_rounding_is_left_out_where_the_converter_fuses():
    """By hand: conv, batch norm and ReLU become one operator, so that one range is learnt."""
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = kl.ReLU(name="relu")(kl.BatchNormalization(name="bn")(kl.Conv2D(4, 3, name="conv")(inputs)))
    y = kl.Conv2D(4, 1, name="other")(x)
    model = keras.Model(inputs, kl.Add(name="sum")([x, y]))
    names = [w.name for w in training.quantised(model).model.weights if "min" in w.name]
    of_layers = sorted(n.split("/")[0] for n in names if "kernel" not in n)
    # `other` and `relu` are read by the addition and by two layers: both have ranges.
    assert of_layers == ["other", "pixels_rounding", "relu", "sum"]


def test_ranges_are_those_of_the_calibration():
    model = zoo.build("plain")
    x = zoo.sample(model, 8)
    found = calibrated(model, x)
    ranges = {w.name: float(w) for w in found.model.weights if w.name.startswith("keras_tensor")}
    low, high = (next(v for n, v in ranges.items() if end in n) for end in ("_min", "_max"))
    assert (low, high) == pytest.approx((x.min(), x.max()))


@pytest.fixture(scope="module")
def lopsided():
    """A trained network of which one hidden unit is 100 times as large, and is read divided by it.

    The function is the same, but one scale must now serve that unit and all others.
    """
    net = blobs.trained()
    hidden, last = net.get_layer("hidden"), net.layers[-1]
    (kernel, bias), (after, rest) = hidden.get_weights(), last.get_weights()
    kernel[:, 0] *= 100
    bias[0] *= 100
    after[0] /= 100
    hidden.set_weights([kernel, bias])
    last.set_weights([after, rest])
    return net


@pytest.fixture(scope="module")
def task():
    return blobs.task(batch_size=32)


@pytest.mark.slow
def test_training_repairs_what_rounding_broke(lopsided, task, tmp_path):
    settings = export.ExportSettings(qat_epochs=6, qat_learning_rate=5e-3, tolerance=0.02)
    before = lopsided.get_weights()
    exporter = export.Exporter(lopsided, lopsided, task, settings)
    plain = exporter.write("int8", tmp_path / "plain.tflite")
    trained = exporter.write("int8_qat", tmp_path / "trained.tflite")
    assert plain.score < exporter.score - 0.02 and not plain.within_tolerance
    # What is wrong shows first behind the layer with the large unit.
    assert "dense" in next(iter(plain.worst_tensors))
    assert trained.score >= plain.score + 0.02 and trained.within_tolerance
    assert trained.float_operators == trained.float_layers == ()
    for a, b in zip(before, lopsided.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_may_follow_the_dense_network(task, tmp_path):
    dense = blobs.trained()
    x, y = blobs.data(400, 0)
    nothing = blobs.task(train=(x, np.random.default_rng(0).permutation(y)), batch_size=32)
    scores = {}
    for share in (0.0, 1.0):
        settings = export.ExportSettings(qat_epochs=8, qat_learning_rate=2e-3, qat_distill=share)
        exporter = export.Exporter(dense, dense, nothing, settings)
        scores[share] = exporter.write("int8_qat", tmp_path / "trained.tflite").score
    assert scores[0.0] < scores[1.0] - 0.2


def test_a_share_is_checked():
    with pytest.raises(amc_tf.AmcError, match=r"qat_distill in \[0, 1\], received 2"):
        export.ExportSettings(qat_distill=2)


def test_the_owner_may_train_it(lopsided, task, tmp_path):
    seen = []

    def own(model):
        assert isinstance(model, tf_keras.Model)
        seen.append(model.count_params())
        for weight in model.trainable_weights:
            weight.assign(tf_keras.backend.zeros(weight.shape))

    owned = blobs.task(qat=own)
    exporter = export.Exporter(lopsided, lopsided, owned, export.ExportSettings(tolerance=1.0))
    exporter.write("int8_qat", tmp_path / "zero.tflite")
    lite = tflite_tools.LiteRtModel((tmp_path / "zero.tflite").read_bytes())
    assert seen and not lite.predict(blobs.data(4, 3)[0]).any()


def test_training_that_diverges_is_told(lopsided, tmp_path):
    def compile_broken(model):
        model.compile("sgd", lambda y, p: keras.ops.mean(p) / 0.0, metrics=["accuracy"])

    broken = blobs.task(compile=compile_broken)
    exporter = export.Exporter(lopsided, lopsided, broken, export.ExportSettings())
    with pytest.raises(amc_tf.AmcError, match="training failed in epoch 1.*qat_learning_rate"):
        exporter.write("int8_qat", tmp_path / "none.tflite")
    assert not list(tmp_path.iterdir())


def test_settings_are_checked():
    with pytest.raises(amc_tf.AmcError, match="at least 0"):
        training.QatSettings(epochs=-1)
    with pytest.raises(amc_tf.AmcError, match="at least 0"):
        training.QatSettings(learning_rate=-1.0)


def test_quantisation_aware_training_leaves_the_process_its_keras():
    code = """
        import os
        from amc_tf.export.qat import training
        import tensorflow as tf
        assert "TF_USE_LEGACY_KERAS" not in os.environ
        assert tf.keras.__version__.startswith("3."), tf.keras.__version__
    """
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
