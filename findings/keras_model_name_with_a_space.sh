#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: a model may be named "my net", and can be called on an array. predict (or anything else
#   that traces a function) raises a ValueError, that this is no valid root scope name, and Keras
#   does not close the scope it opened: all variables made later in this process carry the name in
#   their path, and another model, whose names are all in order, can no longer be trained, for the
#   variables of its optimizer get the refused name. keras.backend.clear_session() ends it.
# Seen: 2026-11-28, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow "$folder/venv/bin/python" - <<'PY'
import keras
import numpy as np


def net(name):
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2, name="dense")(inputs), name=name)


def train(model):
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.fit(np.zeros((4, 4)), np.zeros((4, 2)), verbose=0)


def refused(call):
    try:
        call()
    except ValueError as error:
        assert "my net" in str(error), error
        assert "scope name" in str(error), error
        return True
    return False


def path(model):
    return model.layers[1].kernel.path


train(net("first"))
spaced = net("my net")
assert spaced(np.zeros((1, 4))).shape == (1, 2)
assert path(net("second")) == "dense/kernel"
assert refused(lambda: spaced.predict(np.zeros((1, 4)), verbose=0))
third = net("third")
assert path(third) == "my net/dense/kernel", path(third)
assert refused(lambda: train(third))
keras.backend.clear_session()
fourth = net("fourth")
assert path(fourth) == "dense/kernel", path(fourth)
train(fourth)
print("as described")
PY
