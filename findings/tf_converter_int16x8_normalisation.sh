#!/bin/bash
# Packages: ai-edge-litert 2.3.0, tensorflow 2.21.0
# Behaviour: TensorFlow's converter makes an int16x8 file of a layer normalisation whose
#   SQUARED_DIFFERENCE has int16 inputs. No kernel computes that: the file loads, and its first
#   invocation fails. A root mean square normalisation written as x * x runs, but RSQRT looks its
#   int16 input up in a table of a few hundred entries over the whole range: rows a tenth to a
#   hundredth as large as the loudest come out wrong by a fifth of their size to more than all of
#   it, although 16 bits would hold them; loud rows are right to a hundredth.
# Seen: 2026-11-30, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ai-edge-litert==2.3.0 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

rng = np.random.default_rng(0)
sizes = np.geomspace(0.03, 3.0, 16).reshape(1, 16, 1)
samples = [(rng.normal(size=(1, 16, 12)) * sizes).astype("float32") for _ in range(32)]


def layer(x):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3)


def root_mean_square(x):
    return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-6)


def interpreter_of(body):
    call = tf.function(body, input_signature=[tf.TensorSpec((1, 16, 12), tf.float32, "x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[x] for x in samples]
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    made = Interpreter(model_content=converter.convert())
    made.allocate_tensors()
    return made


def run(made, x):
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    return made.get_tensor(made.get_output_details()[0]["index"])


try:
    run(interpreter_of(layer), samples[0])
except RuntimeError as error:
    assert "SQUARED_DIFFERENCE" in str(error), error
else:
    raise AssertionError("the file ran")

made = interpreter_of(root_mean_square)
errors = np.concatenate([run(made, x) - root_mean_square(x).numpy() for x in samples])
expected = np.concatenate([root_mean_square(x).numpy() for x in samples])
of_rows = np.linalg.norm(errors, axis=(0, 2)) / np.linalg.norm(expected, axis=(0, 2))
print(of_rows)
assert of_rows[:7].min() > 0.2 and of_rows[:7].max() > 1.0, of_rows
assert of_rows[-4:].max() < 0.01, of_rows
print("as described")
PY
