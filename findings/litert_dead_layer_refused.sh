#!/bin/bash
# Packages: ai-edge-litert 2.3.0, tensorflow 2.21.0
# Behaviour: An int8 file whose calibration data leave a ReLU closed (its output is 0 on all of
#   them) is written by TensorFlow's converter without a word, with a scale of about 8e-9 for that
#   output. LiteRT's default interpreter refuses the whole file; the built-in kernels run it. What
#   decides is the factor scale of the input * scale of the weights / scale of the output: with the
#   same layer's range opened so far that it is below 256, the default interpreter takes the file.
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
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.tools import flatbuffer_utils

rng = np.random.default_rng(0)
first, second, third = (
    tf.constant(rng.normal(size=(3, 3, a, b)).astype("float32")) for a, b in ((3, 8), (8, 8), (8, 4))
)


@tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32, "x")])
def call(x):
    live = tf.nn.relu(tf.nn.conv2d(x, first, 1, "SAME"))
    dead = tf.nn.relu(tf.nn.conv2d(live, second, 1, "SAME") - 1000.0)
    return tf.nn.conv2d(dead, third, 1, "SAME") + tf.reduce_mean(live)


converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.representative_dataset = lambda: [
    [rng.uniform(size=(1, 8, 8, 3)).astype("float32")] for _ in range(8)
]


def loads(content, kernels):
    try:
        Interpreter(
            model_content=content, experimental_op_resolver_type=kernels
        ).allocate_tensors()
    except RuntimeError as error:
        assert "failed to create XNNPACK runtime" in str(error), error
        return False
    return True


content = converter.convert()
scales = [
    float(t.quantization.scale[0])
    for t in flatbuffer_utils.convert_bytearray_to_object(content).subgraphs[0].tensors
    if t.quantization is not None and t.quantization.scale is not None and len(t.shape) == 4
]
assert min(scales) < 1e-8, scales
assert not loads(content, OpResolverType.BUILTIN)
assert loads(content, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)

converter._experimental_calibrate_only = True
calibrated = converter.convert()


def widened(width):
    model = flatbuffer_utils.convert_bytearray_to_object(calibrated)
    for tensor in model.subgraphs[0].tensors:
        found = tensor.quantization
        if found is not None and found.max is not None and float(found.max[0]) < 1e-6:
            found.min, found.max = [0.0], [width]
    return bytes(
        mlir_quantize(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    )


assert not loads(widened(1e-4), OpResolverType.BUILTIN)
assert loads(widened(1.0), OpResolverType.BUILTIN)
print("as described")
PY
