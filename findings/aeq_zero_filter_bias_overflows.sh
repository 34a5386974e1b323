#!/bin/bash
# Packages: ai-edge-quantizer 0.10.0, ai-edge-litert 2.3.0, tensorflow 2.21.0
# Behaviour: ai-edge-quantizer gives the bias of a filter that is nearly zero the scale of the input
#   times that of the filter, as small as that is, and stores the bias clipped to 32 bits: at the
#   filter's scale this is close to 0, so that its output loses its bias, silently. TensorFlow's own
#   quantiser widens the filter's scale until the bias fits, and is right for the same float file.
# Seen: 2026-11-30, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ai-edge-quantizer==0.10.0 ai-edge-litert==2.3.0 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer

rng = np.random.default_rng(0)
kernel = rng.normal(size=(1, 1, 3, 4)).astype("float32")
kernel[..., 0] = 1e-12
bias = tf.constant([2.0, 0.5, -0.5, 1.0])
samples = [rng.uniform(size=(1, 4, 4, 3)).astype("float32") for _ in range(8)]


@tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 3), tf.float32, "x")])
def call(x):
    return tf.nn.conv2d(x, tf.constant(kernel), 1, "SAME") + bias


def converter():
    made = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
    return made


def error(content):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = given["quantization"]
    x = samples[0]
    if scale:
        x = np.clip(np.round(x / scale) + zero, -128, 127).astype("int8")
    interpreter.set_tensor(given["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(made["index"]).astype("float32")
    scale, zero = made["quantization"]
    if scale:
        found = (found - zero) * scale
    return np.abs(found - call(samples[0]).numpy()).max((0, 1, 2))


whole = converter()
whole.optimizations = [tf.lite.Optimize.DEFAULT]
whole.representative_dataset = lambda: [[x] for x in samples]
right = error(whole.convert())
assert right.max() < 0.05, right

made = quantizer.Quantizer(bytearray(converter().convert()))
made.add_static_config(
    regex=".*", operation_name="*", activation_num_bits=8, weight_num_bits=8
)
plain = Interpreter(model_content=converter().convert())
plain.allocate_tensors()
outputs = np.concatenate([call(x).numpy() for x in samples])
ranges = {
    detail["name"]: {"min": np.array([[v.min()]]), "max": np.array([[v.max()]])}
    for (detail,), v in (
        (plain.get_input_details(), np.concatenate(samples)),
        (plain.get_output_details(), outputs),
    )
}
wrong = error(bytes(made.quantize(ranges).quantized_model))
print(right, wrong)
assert wrong[0] > 1.5 and wrong[1:].max() < 0.05, wrong
print("as described")
PY
