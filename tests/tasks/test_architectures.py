"""Architectures beyond plain convolutions, each from a trained model to checked files."""

import dataclasses

import blobs
import keras
import marks
import numpy as np
import pytest
from small_networks import NETWORKS
from small_tasks import digits

import amc_tf
import tflite_tools
from amc_tf.runs.result import RunResult

SETTINGS = amc_tf.Settings(
    rehearse=False,
    search=blobs.search_settings(episodes=6, policies=("amc", "uniform")),
    export=amc_tf.ExportSettings(latency_rounds=1, latency_runs=2, latency_min_secs=0.01),
)
# Streams under layer normalisation are pruned in these.
APPROXIMATE = {"vision_transformer", "conv_next"}
EPOCHS = 10


@pytest.mark.parametrize("name", marks.slow_but(NETWORKS, ()))
def test_end_to_end(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.004), loss, metrics=["accuracy"])
    parts = {part: _digits(part) for part in ("train", "validation", "test")}
    model.fit(*parts["train"], batch_size=32, epochs=EPOCHS, verbose=0)
    dense = model.evaluate(*parts["test"], verbose=0)[1]
    task = amc_tf.Task(**parts, batch_size=32, calibration_size=64, epochs=2)
    search = dataclasses.replace(SETTINGS.search, allow_approximate=name in APPROXIMATE)
    settings = dataclasses.replace(SETTINGS, search=search)
    amc_tf.compress(model, task, amc_tf.Budget(macs=0.5), tmp_path, settings)

    result = RunResult.read(tmp_path)
    assert result.finetuned.macs <= 0.5 * result.dense.macs
    assert result.finetuned.score > dense - 0.1
    # What a plan scored in the search is what the network scores that is built of it.
    pruned = keras.models.load_model(tmp_path / "pruned.keras", compile=False)
    x, y = parts["validation"]
    found = float(np.mean(pruned.predict(x, verbose=0).argmax(-1) == y))
    assert result.policies[result.chosen].search_score == pytest.approx(found, abs=2e-3)
    finetuned = keras.models.load_model(tmp_path / "finetuned.keras", compile=False)
    x, y = parts["test"]
    outputs = finetuned.predict(x, verbose=0)
    assert float(np.mean(outputs.argmax(-1) == y)) == pytest.approx(result.finetuned.score)
    for kind, tolerance in (("float32", 1e-5), ("int8", 0.02)):
        file = tflite_tools.LiteRtModel((tmp_path / f"model_{kind}.tflite").read_bytes())
        found = file.predict(x)
        assert np.abs(found - outputs).mean() < tolerance
        told = result.tflite[f"model_{kind}.tflite"].score
        assert told == pytest.approx(float(np.mean(found.argmax(-1) == y)))
        assert told > result.finetuned.score - 0.03


def _digits(part):
    images, labels = digits()
    order = np.random.default_rng(0).permutation(len(images))
    first, second = len(order) * 2 // 3, len(order) * 5 // 6
    chosen = {
        "train": order[:first],
        "validation": order[first:second],
        "test": order[second:],
    }[part]
    return images[chosen], labels[chosen]
