#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: with the TensorFlow backend, `keras.ops.add(x, y)` does not always broadcast. A `y` all
#   of whose axes but one are of size 1 is squeezed and added as a bias: along the last axis of `x` if
#   that is as long, else along axis 1 if that is, wherever the long axis of `y` lies. So a table of
#   columns (1, 1, width, 1) is added to the rows of a square image, a column (steps, 1) to the
#   channels where there are as many channels as steps, and a (5,) to axis 1 of (2, 5, 7), which NumPy
#   refuses. It happens to constants, variables and tensors, eagerly and in a model, and the shapes
#   are right, so nothing is told. `keras.ops.add(y, x)`, `subtract(x, -y)`, and other sizes of the
#   same model broadcast as NumPy does. So does `x + y` on real tensors, in the `call` of a layer for
#   instance; in a functional model `x + y` is that `add`, so that the same expression adds along one
#   axis in a layer and along another between layers. A learnt table of columns that is added so on
#   square images learns rows, and changes its meaning when the image is no longer square.
# Seen: 2026-12-01, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
cd "$folder"
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np
from keras import ops

rng = np.random.default_rng(0)


def drawn(*shape):
    return rng.normal(size=shape).astype("float32")


# Columns of an image: right where it is not square, taken for rows where it is.
columns = drawn(1, 1, 8, 1)
wide, square = drawn(2, 6, 8, 5), drawn(2, 8, 8, 5)
np.testing.assert_allclose(ops.add(wide, columns), wide + columns)
rows = columns.reshape(1, 8, 1, 1)
np.testing.assert_allclose(ops.add(square, columns), square + rows)
np.testing.assert_allclose(ops.add(columns, square), square + columns)
np.testing.assert_allclose(ops.subtract(square, -columns), square + columns)

# Steps of a sequence with as many channels as steps.
steps = drawn(6, 1)
same, other = drawn(2, 6, 6), drawn(2, 6, 7)
np.testing.assert_allclose(ops.add(other, steps), other + steps)
np.testing.assert_allclose(ops.add(same, steps), same + steps.reshape(6))

# What NumPy refuses.
five, odd = drawn(5), drawn(2, 5, 7)
np.testing.assert_allclose(ops.add(odd, five), odd + five.reshape(5, 1))
try:
    odd + five
except ValueError:
    pass
else:
    raise AssertionError("NumPy added them")


class Columns(keras.layers.Layer):
    """A learnt offset for each column, added by an operation or by an operator."""

    def __init__(self, by_operator):
        super().__init__()
        self.by_operator = by_operator

    def build(self, shape):
        self.table = self.add_weight(shape=(1, 1, shape[2], 1), initializer="random_normal")

    def call(self, x):
        return x + self.table if self.by_operator else ops.add(x, self.table)


def difference(height, by_operator):
    """Of a model with the layer, from what NumPy makes of its weight."""
    inputs = keras.Input((height, 8, 3))
    layer = Columns(by_operator)
    model = keras.Model(inputs, layer(inputs))
    x = drawn(1, height, 8, 3)
    return np.abs(model.predict(x, verbose=0) - (x + np.asarray(layer.table))).max()


assert difference(6, by_operator=False) < 1e-6
assert difference(8, by_operator=False) > 0.01
assert difference(8, by_operator=True) < 1e-6

# Between layers the operator is that operation.
inputs = keras.Input((8, 8, 5))
model = keras.Model(inputs, inputs + columns)
np.testing.assert_allclose(model.predict(square, verbose=0), square + rows, rtol=1e-6)
print("as described")
PY
