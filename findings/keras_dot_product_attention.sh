#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: `keras.ops.dot_product_attention` gives its symbolic result the width of the queries,
#   where the real result has that of the values. So a functional model in which the two differ is
#   built without a word, with a kernel of the wrong size behind it, and fails when it is called; one
#   that wants the right size cannot be built. `MultiHeadAttention(value_dim=...)` hides it, as it
#   tells its own output shape. With the TensorFlow backend two heads of keys serve four of queries,
#   but one head of keys (multi-query attention, of which the documentation speaks) is refused.
# Seen: 2026-11-30, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np
from keras import ops

rng = np.random.default_rng(0)


def drawn(heads, width):
    return rng.normal(size=(2, 5, heads, width)).astype("float32")


query, key, value = drawn(4, 3), drawn(4, 3), drawn(4, 7)
assert ops.dot_product_attention(query, key, value).shape == (2, 5, 4, 7)
symbols = [keras.KerasTensor(x.shape) for x in (query, key, value)]
assert ops.dot_product_attention(*symbols).shape == (2, 5, 4, 3)

inputs = keras.Input((5, 4, 3))
wide = keras.layers.Dense(7)(inputs)
attended = ops.dot_product_attention(inputs, inputs, wide)
model = keras.Model(inputs, keras.layers.Dense(2)(attended))
assert model.layers[-1].kernel.shape == (3, 2)  # it will read 7
try:
    model(query)
except ValueError as error:
    assert "expected axis -1 of input shape to have value 3" in str(error)
else:
    raise AssertionError("the model ran")

layer = keras.layers.MultiHeadAttention(4, 3, value_dim=7)
x = rng.normal(size=(2, 5, 6)).astype("float32")
assert layer(x, x).shape == (2, 5, 6)

assert ops.dot_product_attention(query, drawn(2, 3), drawn(2, 7)).shape == (2, 5, 4, 7)
try:
    ops.dot_product_attention(query, drawn(1, 3), drawn(1, 7))
except Exception as error:
    assert "Expected dimension 4" in str(error) and "got dimension 1" in str(error)
else:
    raise AssertionError("one head of keys served all queries")
print("as described")
PY
