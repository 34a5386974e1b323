"""A run whose residuals are folded first: shares and dense numbers stay the user's network's."""

import dataclasses
import json

import blobs
import keras
import numpy as np
import pytest
from keras import layers as kl

import amc_tf
import tflite_tools
from amc_tf.runs import identity, layout

BUDGET = amc_tf.Budget(macs=0.5)
SETTINGS = amc_tf.Settings(
    rehearse=False,
    fold_residuals=True,
    search=blobs.search_settings(episodes=3),
    export=amc_tf.ExportSettings(formats=("float32",), latency_rounds=0),
)


def _net(epochs=5):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(6, 3, padding="same", activation="relu", name="stem")(x)
    for i in range(2):
        y = kl.Conv2D(4, 3, padding="same", use_bias=False, name=f"a{i}")(x)
        y = kl.ReLU()(kl.BatchNormalization()(y))
        y = kl.BatchNormalization()(kl.Conv2D(6, 3, padding="same", name=f"b{i}")(y))
        x = kl.ReLU()(kl.Add(name=f"add{i}")([x, y]))
    net = keras.Model(inputs, kl.Dense(4, name="head")(kl.Flatten()(kl.MaxPooling2D(4)(x))))
    blobs.compile_model(net)
    if epochs:
        net.fit(*blobs.data(400, 0), epochs=epochs, verbose=0)
    return net


# 64 positions: 9 (1 x 6 + 4 of 6 x 4) kernels' elements; 24 x 4 of the head.
MACS = 64 * 9 * (6 + 4 * 24) + 24 * 4


@pytest.fixture(scope="module")
def net():
    return _net()


@pytest.fixture(scope="module")
def workdir(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("folded")
    amc_tf.compress(net, blobs.task(), BUDGET, path, SETTINGS)
    return path


@pytest.fixture(scope="module")
def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def test_shares_are_of_the_users_network(net, workdir, result):
    assert amc_tf.macs(amc_tf.analyze(net)) == MACS == result["dense"]["macs"]
    bound = result["budget"]["macs"]
    assert bound["dense"] == MACS and bound["bound"] == MACS // 2
    assert bound["reached"] == result["finetuned"]["macs"] <= MACS // 2
    assert result["dense"]["params"] == amc_tf.params(amc_tf.analyze(net))
    search = json.loads((workdir / "search.json").read_text())
    assert search["dense"]["macs"] == MACS and search["bounds"] == {"macs": MACS // 2}
    config = json.loads((workdir / "config.json").read_text())
    assert config["budget"] == {"macs": 0.5} and config["fold_residuals"] is True


def test_what_was_tied_is_pruned_apart(net, workdir):
    small = keras.models.load_model(workdir / "finetuned.keras", compile=False)
    assert not [layer for layer in small.layers if isinstance(layer, kl.Add)]
    groups = json.loads((workdir / "search.json").read_text())["groups"]
    assert sorted(group["channels"] for group in groups) == [6, 6, 6, 10, 10]


def test_the_exported_dense_network_is_the_users(net, workdir):
    x = blobs.data(8, 3)[0]
    content = (workdir / layout.compared_file("dense")).read_bytes()
    assert len(content) < len(tflite_tools.convert(amc_tf.fold_residuals(net)))
    model = tflite_tools.LiteRtModel(content)
    np.testing.assert_allclose(model.predict(x), net.predict(x, verbose=0), atol=1e-4)
    assert (workdir / "model_float32.tflite").exists()


def test_the_run_is_resumed_and_is_no_other(net, workdir, result):
    again = amc_tf.compress(net, blobs.task(), BUDGET, workdir, SETTINGS)
    assert again.to_json() == result
    other = dataclasses.replace(SETTINGS, fold_residuals=False)
    with pytest.raises(amc_tf.AmcError, match=r"fold_residuals: True there, False now"):
        amc_tf.compress(net, blobs.task(), BUDGET, workdir, other)


def test_a_folder_of_a_version_without_the_option_did_not_fold():
    (found,) = identity.differences({"train_dense": False}, {"fold_residuals": True})
    assert (found.path, found.before, found.drops) == (("fold_residuals",), False, None)
    assert not identity.differences({"train_dense": False}, {"fold_residuals": False})


def test_a_dense_model_that_is_trained_first_is_folded_afterwards(tmp_path):
    settings = dataclasses.replace(SETTINGS, train_dense=True, rehearse=False)
    run = amc_tf.Compression(_net(0), blobs.task(), BUDGET, tmp_path, settings)
    dense = keras.models.load_model(tmp_path / "dense.keras")
    x = blobs.data(8, 3)[0]
    expected = dense.predict(x, verbose=0)
    np.testing.assert_allclose(run.graph.network.model.predict(x, verbose=0), expected, atol=1e-4)
    assert len(dense.get_layer("add0").input) == 2


@pytest.mark.parametrize(
    "budget, reward",
    [(amc_tf.Budget(latency=0.5), "err"), (amc_tf.Budget(latency_ms=1), "err"), (None, "latency")],
)
def test_latency_is_refused(net, tmp_path, budget, reward):
    search = dataclasses.replace(SETTINGS.search, reward=reward)
    settings = dataclasses.replace(SETTINGS, search=search)
    with pytest.raises(amc_tf.AmcError, match="expected a budget or reward of macs or params"):
        amc_tf.Compression(net, blobs.task(), budget, tmp_path, settings)
    assert not list(tmp_path.iterdir())


def test_experiment_files_have_the_option():
    assert amc_tf.default_config().fold_residuals is False
