#!/bin/bash
# Packages: ai-edge-litert 2.3.0, tensorflow 2.21.0
# Behaviour: Dynamic-range quantisation, which is to make a network smaller and faster, makes its
#   depthwise layers several times slower than float: the converter stores depthwise kernels of 1,024
#   numbers or more in int8, but LiteRT's XNNPACK delegate takes no depthwise layer with such weights
#   and float activations, and leaves it to an older kernel. Pointwise layers it takes. A kernel of
#   fewer numbers stays float, and is as fast as before.
# Seen: 2026-11-30, Python 3.11, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ai-edge-litert==2.3.0 tensorflow==2.21.0
cd "$folder"
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PY'
import statistics
import time

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

rng = np.random.default_rng(0)


def files(channels):
    kernel = tf.constant(rng.normal(size=(3, 3, channels, 1)).astype("float32"))
    call = tf.function(
        lambda x: tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME"),
        input_signature=[tf.TensorSpec((1, 56, 56, channels), tf.float32, "x")],
    )
    found = []
    for optimizations in ([], [tf.lite.Optimize.DEFAULT]):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()])
        converter.optimizations = optimizations
        made = Interpreter(model_content=converter.convert(), num_threads=1)
        made.allocate_tensors()
        found.append(made)
    return found


def seconds(made):
    x = rng.normal(size=made.get_input_details()[0]["shape"]).astype("float32")
    made.set_tensor(made.get_input_details()[0]["index"], x)
    start = time.perf_counter()
    for _ in range(5):
        made.invoke()
    return time.perf_counter() - start


def ratio(channels):
    """Time of the dynamic file over that of the float file: median of rounds in turn."""
    plain, dynamic = files(channels)
    seconds(plain), seconds(dynamic)
    return statistics.median(seconds(dynamic) / seconds(plain) for _ in range(15))


small, large = ratio(96), ratio(128)  # 864 and 1,152 weights
print(small, large)
assert small < 1.5 and large > 2.5, (small, large)
print("as described")
PY
