"""A format that a model cannot be exported in is found by trying, with the layer's name."""

import dataclasses
import sys

import keras
import numpy as np
import pytest
from keras import layers as kl

from amc_tf.export import rehearsal
from amc_tf.export.settings import ExportSettings
from tflite_tools import apart, isolation

X = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")


class Turned(kl.Layer):
    """A layer that no registry knows, around an operator that LiteRT lacks."""

    def call(self, x):
        return keras.ops.arctan(x)


def net(*middle):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = kl.Conv2D(4, 3, padding="same", name="stem")(x)
    for layer in middle:
        x = layer(x)
    return keras.Model(inputs, kl.Dense(2, name="head")(kl.GlobalAveragePooling2D()(x)))


def test_a_format_that_works_is_made_and_run():
    found = rehearsal.tried(net(kl.ReLU()), [X], "int8")
    assert found.error is None and found.seconds > 0 and found.format == "int8"


def test_an_operator_without_counterpart_names_its_layer(capfd):
    model = net(Turned(name="own"), kl.UpSampling2D(2, interpolation="bicubic", name="larger"))
    error = rehearsal.tried(model, [X], "float16").error
    assert "'own' (Turned)" in error and "'larger' (UpSampling2D)" in error
    assert "Atan, ResizeBicubic" in error and 'interpolation="bilinear"' in error
    assert (
        error.startswith("float16 export: ") and "\n" not in error and "flex" not in error.lower()
    )
    assert "loc(" not in capfd.readouterr().err  # nor does the converter print the graph


@pytest.mark.parametrize("last", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_operation_that_is_no_layer_is_named(last):
    """With the layer behind it, as the graph does not tell which of the two a node is of."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = kl.Conv2D(4, 3, padding="same", name="stem")(x)
    x = kl.Flatten(name="flat")(x)
    if not last:
        x = keras.ops.arctan(x)
    x = kl.Dense(2, name="head")(x)
    if last:
        x = keras.ops.arctan(x)
    error = rehearsal.tried(keras.Model(inputs, x), [X], "float32").error
    assert "(Arctan)" in error and "stem" not in error and "flat" not in error, error
    assert ("'head' (Dense)" in error) != last, error


def test_loops_name_their_layer():
    """Told as an export would; freezing shows it, in a child all the same."""
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, kl.Dense(2)(kl.LSTM(4, name="reader")(inputs)))
    error = rehearsal.tried(model, [X[:, :5, 0]], "int16x8").error
    assert "layer 'reader' (LSTM)" in error and "unroll=True" in error


def test_a_converter_that_dies_is_told_and_the_layer_found(monkeypatch):
    """A child that ends by the signal of a bad address, wherever the layer `second` takes part."""
    model = net(kl.ReLU(name="first"), kl.Conv2D(4, 1, name="second"), kl.ReLU(name="third"))
    real, tries = apart.FrozenModel.attempt, []
    dying = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    monkeypatch.setattr(isolation, "command", lambda *_: dying)

    def attempt(self, *args, outputs=None, **kwargs):
        tries.append(outputs)
        if outputs is None or any("second" in name for name in outputs):
            return real(self, *args, outputs=outputs, **kwargs)
        return apart.Attempt(0.0, b"")

    monkeypatch.setattr(apart.FrozenModel, "attempt", attempt)
    error = rehearsal.tried(model, [X], "int8").error
    assert "layer 'second' (Conv2D): the converter's process died of SIGSEGV" in error
    assert "leave the format out" in error and 2 <= len(tries) <= 5


def test_a_conversion_that_hangs(monkeypatch):
    monkeypatch.setattr(
        isolation, "command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"]
    )
    found = apart.FrozenModel.of(net()).attempt(None, timeout=0.5)
    assert "did not end within 0.5 seconds" in found.error and found.content is None


def test_layers_that_stay_float_are_tried_as_they_are_exported():
    settings = dataclasses.replace(ExportSettings(), keep_float=("head",))
    assert rehearsal.tried(net(), [X], "int8", settings).error is None
    wrong = dataclasses.replace(settings, keep_float=("tail",))
    assert "keep_float names 'tail'" in rehearsal.tried(net(), [X], "int8", wrong).error


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_without_numbers_is_no_crash(value):
    model = net()
    model.get_layer("head").bias.assign([value, 0.0])
    assert "every weight must be finite" in rehearsal.tried(model, [X], "float32").error
