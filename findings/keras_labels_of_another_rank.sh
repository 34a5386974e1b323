#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: A compiled Keras model on TensorFlow evaluates labels of shape (n,) and labels of shape (n, 1)
#   alike, and both give the same loss. But once one model has evaluated labels of the one shape, it
#   raises on labels of the other ("Cannot take the length of shape with unknown rank"): the traced
#   step is generalised to labels of unknown rank, which the losses cannot handle. Compiling again
#   clears it. So a model that was scored on an array of labels fails on a column of the same labels,
#   such as a pandas one, long after its start.
# Seen: 2026-11-28, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np

x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
y = np.arange(16, dtype="float32")


def model():
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    return net


flat = model().evaluate(x, y, verbose=0)
column = model().evaluate(x, y[:, None], verbose=0)
assert abs(flat - column) < 1e-4 * flat, (flat, column)

for first, second in ((y, y[:, None]), (y[:, None], y)):
    net = model()
    net.evaluate(x, first, verbose=0)
    try:
        net.evaluate(x, second, verbose=0)
    except ValueError as error:
        assert "unknown rank" in str(error), error
    else:
        raise AssertionError("labels of another rank were evaluated")
    net.compile("sgd", "mse")
    assert abs(net.evaluate(x, second, verbose=0) - flat) < 1e-4 * flat
print("as described")
PY
