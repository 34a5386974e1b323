#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: keras.ops.conv_transpose on a symbolic tensor gives a tensor of the right shape, and a
#   functional model is built of it without a word. The model cannot be called: it raises an
#   AttributeError about None. The same call inside the call() of a layer works, and so does the
#   function on an array.
# Seen: 2026-11-28, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np

kernel = np.ones((3, 3, 5, 2), "float32")
x = np.ones((1, 4, 4, 2), "float32")


def up(value, **more):
    return keras.ops.conv_transpose(value, kernel, strides=2, padding="same", **more)


assert up(x).shape == (1, 8, 8, 5)
inputs = keras.Input((4, 4, 2))
outputs = up(inputs)
assert outputs.shape == (None, 8, 8, 5)
try:
    keras.Model(inputs, outputs)(x)
except AttributeError as error:
    assert "NoneType" in str(error), error
else:
    raise AssertionError("the model was called")


class Up(keras.layers.Layer):
    def call(self, value):
        return up(value)


assert keras.Model(inputs, Up()(inputs))(x).shape == (1, 8, 8, 5)
print("as described")
PY
