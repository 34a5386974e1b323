"""Files that people bring: compiled with what is not at hand, or no model at all."""

import logging
import zipfile

import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf

_MY_LAYERS = """
import keras

@keras.saving.register_keras_serializable("brought")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture
def model():
    inputs = keras.Input((6,))
    return keras.Model(inputs, kl.Dense(2)(kl.Dense(5, activation="relu")(inputs)))


def _own_loss(y, p):
    return keras.ops.mean((y - p) ** 2)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("loss", ["mse", _own_loss], ids=["named", "own"])
def test_a_file_loads_whatever_it_was_compiled_with(model, tmp_path, caplog, suffix, loss):
    model.compile("adam", loss, metrics=[_own_loss])
    path = tmp_path / f"net{suffix}"
    model.save(path)
    with caplog.at_level(logging.WARNING, logger="amc_tf"):
        loaded = amc_tf.load_model(path)
    x = np.ones((3, 6), np.float32)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert "without its compile settings" in caplog.text


def test_known_compile_settings_are_kept(model, tmp_path, caplog):
    model.compile("adam", "mse")
    model.save(tmp_path / "net.keras")
    assert amc_tf.load_model(tmp_path / "net.keras").optimizer is not None
    assert not caplog.text


def _weights_alone(path, model):
    model.save_weights(path.with_suffix(".weights.h5"))
    path.with_suffix(".weights.h5").rename(path)


def _pointer(path, model):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")


def _backslashes(path, model):
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        # Not `writestr` of the name alone, for which Python would turn it round on Windows.
        info = zipfile.ZipInfo("assets")
        info.filename = "assets\\vocabulary.txt"
        archive.writestr(info, b"")


@pytest.mark.parametrize(
    "name, make, told",
    [
        ("net.h5", _weights_alone, "holds weights without the model.*load_weights"),
        ("net.keras", _pointer, "pointer of Git LFS.*git lfs pull"),
        ("net.h5", _pointer, "pointer of Git LFS"),
        ("net.keras", _backslashes, "backslashes.*with slashes"),
    ],
)
def test_what_is_no_model_is_told_as_what_it_is(model, tmp_path, name, make, told):
    make(tmp_path / name, model)
    with pytest.raises(amc_tf.AmcError, match=told):
        amc_tf.load_model(tmp_path / name)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_missing_class_is_named_and_can_be_imported(tmp_path, suffix):
    scope: dict = {}
    exec(_MY_LAYERS, scope)
    inputs = keras.Input((6,))
    made = keras.Model(inputs, kl.Dense(2)(scope["Doubled"]()(inputs)))
    made.save(tmp_path / f"net{suffix}")
    registered = keras.saving.get_custom_objects()
    held = registered.pop("brought>Doubled")
    try:
        with pytest.raises(amc_tf.AmcError, match="needs the .*Doubled.*--import"):
            amc_tf.load_model(tmp_path / f"net{suffix}")
    finally:
        registered["brought>Doubled"] = held
