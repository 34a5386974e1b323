#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: In a `call` of one's own, `training=` that is given to one layer holds for the layers
#   called after it, too, where these are given nothing. Monte Carlo dropout, `drop(x, training=True)`,
#   makes a batch norm behind it change its moving statistics in `predict`. A batch norm that is kept
#   frozen by `training=False` turns a dropout behind it off in `fit`. With the same two layers in
#   the other order, nothing of this happens. The leak goes on beyond the layer whose `call` it is in.
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

x = np.random.default_rng(0).normal(3.0, 1.0, (256, 8)).astype("float32")


class MonteCarlo(keras.Model):
    def __init__(self, dropout_first):
        super().__init__()
        self.dropout_first = dropout_first
        self.drop = keras.layers.Dropout(0.5)
        self.norm = keras.layers.BatchNormalization()

    def call(self, x):
        if self.dropout_first:
            return self.norm(self.drop(x, training=True))
        return self.drop(self.norm(x), training=True)


def moved(model):
    """How far inference moves the moving mean."""
    model(x[:1])  # which builds it
    before = np.array(model.norm.moving_mean)
    model.predict(x, verbose=0)
    return np.abs(np.array(model.norm.moving_mean) - before).max()


assert moved(MonteCarlo(dropout_first=True)) > 0.01
assert moved(MonteCarlo(dropout_first=False)) == 0.0


class Frozen(keras.layers.Layer):
    """A layer whose last call is of a batch norm that is not to be trained."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def call(self, x):
        return self.norm(x, training=False)


class Trained(keras.Model):
    def __init__(self, frozen):
        super().__init__()
        self.first = Frozen() if frozen else keras.layers.Identity()
        self.drop = keras.layers.Dropout(0.5)

    def call(self, x):
        return self.drop(self.first(x))


def dropped(model):
    """The share of values that a call in training sets to zero."""
    return float((np.array(model(x, training=True)) == 0).mean())


assert 0.4 < dropped(Trained(frozen=False)) < 0.6
assert dropped(Trained(frozen=True)) == 0.0
print("ok")
PY
