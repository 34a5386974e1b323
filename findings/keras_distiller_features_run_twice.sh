#!/bin/bash
# Packages: keras 3.15.1, tensorflow 2.21.0
# Behaviour: with a FeatureDistillation, keras.distillation.Distiller runs its student twice in each
#   step: once for the outputs that the labels are compared with, and once more, as in training, for
#   the features. So the moving statistics of batch norms move twice in a step (with momentum 0.9,
#   after one step 0.19 of the way and not 0.1), and the outputs and the features that one step
#   learns from are of two different dropout masks. With a LogitsDistillation alone it runs once.
# Seen: 2026-11-30, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0
cat > "$folder/distiller.py" <<'PY'
import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(3, 1, (64, 6)).astype("float32")
y = rng.normal(0, 1, (64, 2)).astype("float32")
masks = []


class Masked(keras.layers.Dropout):
    """A dropout that tells which of many ones it lets through."""

    def call(self, inputs, training=None):
        found = super().call(keras.ops.ones_like(inputs), training=training)
        if training:
            masks.append(np.array(found) > 0)
        return inputs * found


def network():
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization(momentum=0.9, name="norm")
    layers = [norm, Masked(0.5, name="masked"), keras.layers.Dense(2, name="out")]
    inputs = outputs = keras.Input((6,))
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def moved(followed):
    """How far of the way to the batch's mean the moving mean is after one step."""
    masks.clear()
    student = network()
    model = keras.distillation.Distiller(network(), student, followed)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    model.train_on_batch(x, y)
    mean = np.array(student.get_layer("norm").moving_mean)
    return float(np.mean(mean / x.mean(axis=0)))


outputs = keras.distillation.LogitsDistillation()
assert np.isclose(moved(outputs), 0.1, atol=1e-4)
assert len(masks) == 1
features = keras.distillation.FeatureDistillation(
    loss="mse", teacher_layer_name="norm", student_layer_name="norm"
)
assert np.isclose(moved(features), 0.19, atol=1e-4)
assert len(masks) == 2 and not np.array_equal(*masks)
print("as described")
PY
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" "$folder/distiller.py"
