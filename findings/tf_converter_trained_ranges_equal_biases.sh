#!/bin/bash
# Packages: tensorflow 2.21.0, ai-edge-litert 2.3.0
# Behaviour: A network with fake quantisation (as quantisation-aware training leaves it) whose layer has
#   the same bias for all filters, not 0, and a scale for each filter: TensorFlow's converter divides
#   all biases by the scale of the FIRST filter, though the file says that each has its own. Filters
#   of another range get a bias that is wrong by the ratio of the scales; no warning. If one bias
#   differs by its last bit, all are right. Post-training quantisation of the same network is right.
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
sizes = np.array([0.01, 0.1, 1.0, 1.0], "float32")  # of the four filters
kernel = (rng.uniform(-1, 1, (1, 1, 3, 4)).astype("float32")) * sizes
x = rng.uniform(0, 1, (1, 4, 4, 3)).astype("float32")


def network(bias, trained):
    bound = np.abs(kernel).max((0, 1, 2))

    def call(image):
        used = tf.constant(kernel)
        if trained:
            image = tf.quantization.fake_quant_with_min_max_vars(image, 0.0, 1.0)
            used = tf.quantization.fake_quant_with_min_max_vars_per_channel(
                used, -bound, bound, narrow_range=True
            )
        made = tf.nn.conv2d(image, used, 1, "SAME") + tf.constant(bias)
        if trained:
            made = tf.quantization.fake_quant_with_min_max_vars(made, -4.0, 4.0)
        return made

    return tf.function(call, input_signature=[tf.TensorSpec(x.shape, tf.float32, "x")])


def error(bias, trained):
    call = network(bias, trained)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if not trained:
        converter.representative_dataset = lambda: [[x]]
    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return np.abs(got - call(x).numpy()).max((0, 1, 2))


same = np.full(4, 0.5, "float32")
nearly = same.copy()
nearly[0] = np.nextafter(same[0], np.float32(1))
wrong, right, after = error(same, True), error(nearly, True), error(same, False)
print(wrong, right, after)
assert wrong[0] < 0.05 and wrong[1:].min() > 1.0, wrong
assert right.max() < 0.05 and after.max() < 0.05, (right, after)
print("as described")
PY
