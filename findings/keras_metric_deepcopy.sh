#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: copy.deepcopy of a Keras metric does not copy the object. It serialises the metric and
#   loads it again, as if from a file. So the copy has lost its state and every attribute that
#   get_config does not name, and a subclass that is not registered for serialisation cannot be
#   copied at all, though the class is at hand: TypeError, "Could not locate class".
# Seen: 2026-11-28, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow "$folder/venv/bin/python" - <<'PY'
import copy

import keras

metric = keras.metrics.MeanAbsoluteError()
metric.update_state([[0.0], [0.0]], [[3.0], [5.0]])
metric.note = "mine"
other = copy.deepcopy(metric)
assert float(metric.result()) == 4.0
assert float(other.result()) == 0.0, float(other.result())
assert not hasattr(other, "note")


class Mine(keras.metrics.MeanAbsoluteError):
    pass


try:
    copy.deepcopy(Mine())
except TypeError as error:
    assert "Could not locate class 'Mine'" in str(error), error
else:
    raise AssertionError("a class that is not registered was copied")
print("as described")
PY
