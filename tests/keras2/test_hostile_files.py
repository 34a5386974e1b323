"""Model files that name code or other files, and damaged ones: each ends in one sentence."""

import io
import json
import os
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import amc_tf
from amc_tf.keras2 import model_archive, ops_from_keras2, safety

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
l2 = tf_keras.layers


def _save(package, path):
    layers = [package.layers.Input((3,)), package.layers.Dense(2, name="dense")]
    package.Sequential(layers).save(path)


def _change_weights(path, change):
    """Applies a change to the HDF5 file that holds the weights, inside an archive or not."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            change(file)
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        change(file)
    members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _bias(file):
    found = []
    file.visititems(
        lambda name, item: (
            found.append(name)
            if isinstance(item, h5py.Dataset) and item.shape == (2,) and "dense" in name
            else None
        )
    )
    return found[0]


def _elsewhere(folder):
    """Two files that no part of a model should come from."""
    (folder / "raw").write_bytes(np.array([1234.0, 5678.0], "<f4").tobytes())
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.array([1234.0, 5678.0], "f4")


def _external(file, name, folder):
    file.create_dataset(name, (2,), "<f4", external=[(os.fspath(folder / "raw"), 0, 8)])


def _external_link(file, name, folder):
    file[name] = h5py.ExternalLink(os.fspath(folder / "other.h5"), "/x")


def _soft_link(file, name, folder):
    file["elsewhere"] = h5py.ExternalLink(os.fspath(folder / "other.h5"), "/")
    file[name] = h5py.SoftLink("/elsewhere/x")


def _virtual(file, name, folder):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(os.fspath(folder / "other.h5"), "x", (2,))
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("store", [_external, _external_link, _soft_link, _virtual])
@pytest.mark.parametrize("name", ["a.h5", "a.keras"])
@pytest.mark.parametrize("package", [tf_keras, keras], ids=["keras2", "keras3"])
def test_no_weights_come_from_another_file(tmp_path, package, name, store):
    path = tmp_path / name
    _save(package, path)
    assert isinstance(amc_tf.load_model(path), keras.Model)
    _elsewhere(tmp_path)

    def change(file):
        bias = _bias(file)
        del file[bias]
        store(file, bias, tmp_path)

    _change_weights(path, change)
    with pytest.raises(amc_tf.AmcError, match=rf"{name} keeps '/.*' outside.*--unsafe"):
        amc_tf.load_model(path)
    if package is tf_keras:
        with pytest.raises(amc_tf.AmcError, match=f"{name} keeps"):
            amc_tf.from_keras2(path)


def test_groups_that_contain_themselves_are_read_once(tmp_path):
    _save(keras, tmp_path / "a.h5")

    def change(file):
        file["round"] = file["/"]

    _change_weights(tmp_path / "a.h5", change)
    model_archive.refuse_outside_data(tmp_path / "a.h5")


# --- damage ----------------------------------------------------------------------------------


def _without(member):
    def change(path):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist() if name != member}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return change


def _with(member, content):
    def change(path):
        _without(member)(path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, content)

    return change


def _attribute(name, value):
    def change(path):
        with h5py.File(path, "r+") as file:
            del file.attrs[name]
            if value is not None:
                file.attrs[name] = value

    return change


def _part(share):
    def change(path):
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return change


_DAMAGES = {
    "empty": ("a.keras", _part(0)),
    "half of an archive": ("a.keras", _part(0.5)),
    "half of HDF5": ("a.h5", _part(0.5)),
    "no configuration": ("a.keras", _without("config.json")),
    "no weights": ("a.keras", _without("model.weights.h5")),
    "configuration null": ("a.keras", _with("config.json", "null")),
    "configuration cut": ("a.keras", _with("config.json", '{"class_name": "Fun')),
    "configuration deep": ("a.keras", _with("config.json", "[" * 100_000)),
    "configuration empty": ("a.keras", _with("config.json", "{}")),
    "version is a list": ("a.keras", _with("metadata.json", "[]")),
    "version is bytes": ("a.keras", _with("metadata.json", b"\xff\xfe")),
    "weights are text": ("a.keras", _with("model.weights.h5", "weights")),
    "weights only": ("a.h5", _attribute("model_config", None)),
    "HDF5 configuration null": ("a.h5", _attribute("model_config", "null")),
    "HDF5 configuration cut": ("a.h5", _attribute("model_config", '{"class_name":')),
    "HDF5 configuration number": ("a.h5", _attribute("model_config", 3)),
}


@pytest.mark.parametrize("kind", _DAMAGES)
@pytest.mark.parametrize("safe_mode", [True, False], ids=["safe", "unsafe"])
def test_a_damaged_file_of_keras_2_is_one_sentence(tmp_path, kind, safe_mode):
    name, damage = _DAMAGES[kind]
    path = tmp_path / name
    _save(tf_keras, path)
    damage(path)
    # The version only tells `load_model` which Keras is to load the file.
    loads = (amc_tf.load_model, amc_tf.from_keras2)[: 1 if "version" in kind else 2]
    for load in loads:
        with pytest.raises(amc_tf.AmcError) as told:
            load(path, safe_mode=safe_mode)
        assert str(path) in str(told.value)
        assert "\n" not in str(told.value)


# --- what is known to be harmless --------------------------------------------------------------


def test_what_keras_2_itself_writes_is_known(tmp_path):
    inputs = l2.Input((8, 8, 3))
    x = l2.Conv2D(4, 3, kernel_regularizer="l2", kernel_constraint="max_norm")(inputs)
    x = l2.BatchNormalization(momentum=0.9)(tf_keras.activations.gelu(x + 1.0)[:, 1:])
    x = l2.Activation(tf_keras.activations.swish)(l2.TimeDistributed(l2.Dense(4))(x))
    x = l2.Bidirectional(l2.LSTM(3))(l2.Reshape((-1, 4))(x))
    model = tf_keras.Model(inputs, l2.Dense(2, kernel_initializer="he_normal")(x))
    schedule = tf_keras.optimizers.schedules.CosineDecay(0.1, 10)
    model.compile(tf_keras.optimizers.Adam(schedule), tf_keras.losses.Huber(), ["mae"])
    for name in ("a.h5", "a.keras"):
        model.save(tmp_path / name)
        safety.refuse_code(tmp_path / name)


def _file_with(path, entry):
    """A .keras file whose configuration holds an object; nothing loads it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        layers = [{"class_name": "Dense", "config": {}}, entry]
        archive.writestr(
            "config.json", json.dumps({"class_name": "Functional", "config": {"layers": layers}})
        )
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"class_name": "TensorFlowOpLayer", "config": {"node_def": {}}},
        {"class_name": "ClassMethod", "config": {"cls_symbol": "RaggedTensor"}},
        {"class_name": "InstanceMethod", "config": {"method_name": "numpy"}},
        {"class_name": "TFOpLambda", "config": {"function": "new_function_of_2027"}},
        {"class_name": "TFOpLambda", "config": {"function": "map_fn"}},
        {"class_name": "VocabularyFileCategoricalColumn", "config": {}},
        {"class_name": "Dense", "module": "keras.layers", "registered_name": "other"},
        {"class_name": "Dense", "module": "my.package"},
        {"class_name": "Dense.__init__", "module": "keras.layers"},
        {"class_name": ["Dense"], "module": "keras.layers"},
        {"class_name": "function", "module": "keras.activations", "config": "deserialize"},
        {"class_name": "function", "module": "my.package", "config": "relu"},
    ],
    ids=lambda entry: str(entry["class_name"]),
)
def test_what_is_not_known_to_be_harmless_is_refused(tmp_path, entry):
    path = _file_with(tmp_path / "a.keras", entry)
    with pytest.raises(amc_tf.AmcError, match="a.keras holds .* could execute"):
        safety.refuse_code(path)


def test_a_vocabulary_in_another_file_is_refused(tmp_path):
    words = {"class_name": "StringLookup", "config": {"vocabulary": ["a", "b"]}}
    safety.refuse_code(_file_with(tmp_path / "a.keras", words))
    words["config"]["vocabulary"] = "/some/file"
    with pytest.raises(amc_tf.AmcError, match="names the file '/some/file' as a vocabulary"):
        safety.refuse_code(_file_with(tmp_path / "a.keras", words))


def test_every_function_with_a_twin_only_computes():
    for symbol in ops_from_keras2.FROM_KERAS_2:
        assert safety.only_computes(symbol), symbol
    for symbol in ("read_file", "io.read_file", "raw_ops.Abs", "py_function", "ragged.map_flat_"):
        assert not safety.only_computes(symbol), symbol
