"""Data larger than memory is read by slices: measured as the peak memory of a process."""

import os
import subprocess
import sys

import pytest
from places import ROOT

# Peak memory is that of the process so far, so it is told before and after.
CHILD = """
import pathlib, re, sys
import keras, numpy as np
import amc_tf
from amc_tf.scoring.tflite_scorer import LiteScorer

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024

inputs = keras.Input((64, 64, 3))
x = keras.layers.Conv2D(4, 8, strides=8, activation="relu", name="conv")(inputs)
model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
model.compile(
    "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)

def used(x):
    y = np.arange(len(x)) % 3
    task = amc_tf.Task((x, y), (x, y), batch_size=64, calibration_size=32)
    task.check(model)
    task.score(model, task.validation)
    LiteScorer(amc_tf.analyze(model), task, None)(None)
    task.calibration_inputs(model)

used(np.ones((200, 64, 64, 3), "float32"))
shape = (600 * 2**20 // (64 * 64 * 3 * 4), 64, 64, 3)
before = peak()
used(np.memmap(sys.argv[1], "float32", "w+", shape=shape))
print("mapped", round(peak() - before))
data = np.ones(shape, "float32")
before = peak()
used(data)
print("array", round(peak() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path):
    """Keras alone copies all arrays at each evaluation."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "data")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    grown = dict(line.split() for line in process.stdout.splitlines() if len(line.split()) == 2)
    assert {name: int(mebibytes) < 120 for name, mebibytes in grown.items()} == {
        "mapped": True,
        "array": True,
    }, grown
